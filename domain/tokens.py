"""Reads JSON Web Tokens without believing them: nothing here is verified, except that there is one way to read it."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LONGEST_TOKEN = 16 * 1024
"""Characters. Tokens with many groups have about 8,000."""

_TYPES = (None, "jwt", "at+jwt", "application/at+jwt", "application/jwt")
"""What `typ` may say. Tokens for other ends, such as `logout+jwt`, are signed with the same keys."""


@dataclass(frozen=True)
class UnverifiedToken:
    """A token's header and claims, before its signature was checked."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]

    @property
    def issuer(self) -> str | None:
        """Who it says has made it."""
        issuer = self.claims.get("iss")
        return issuer if isinstance(issuer, str) else None


def looks_like_token(text: str) -> bool:
    """Whether a text is meant to be a JSON Web Token, also if it is one that is not accepted."""
    return text.startswith("eyJ") or text.count(".") in (2, 4)


def read_token(text: str) -> UnverifiedToken:
    """Read a signed token in compact form.

    Raises:
        ValueError: the second half of a sentence that says what is wrong with it.
    """
    if len(text) > LONGEST_TOKEN:
        raise ValueError(f"is longer than {LONGEST_TOKEN} characters")
    parts = text.split(".")
    if len(parts) == 5:
        raise ValueError("is encrypted; send a signed one")
    if len(parts) != 3 or not all(parts):
        raise ValueError("does not consist of a header, claims and a signature; copy all of it")
    header, claims = (_object(part) for part in parts[:2])
    if not isinstance(header.get("alg"), str):
        raise ValueError("names no algorithm")
    if "crit" in header or "b64" in header:
        raise ValueError("uses an extension that is not supported")
    if "kid" in header and not isinstance(header["kid"], str):
        raise ValueError("has a key id that is not a text")
    kind = header.get("typ")
    if (kind.lower() if isinstance(kind, str) else kind) not in _TYPES or "cty" in header:
        raise ValueError("is a token for something else")
    return UnverifiedToken(header, claims)


def _object(part: str) -> dict[str, Any]:
    if not part.isascii() or not set(part) <= _ALPHABET:
        raise ValueError("has characters that a token does not have")
    try:
        content = json.loads(
            base64.b64decode(part + "=" * (-len(part) % 4), b"-_", validate=True).decode(),
            object_pairs_hook=_without_duplicates,
            parse_constant=_refuse,
        )
    except _Ambiguous:
        raise ValueError("names something twice, so that programs would read it differently") from None
    except (ValueError, binascii.Error, RecursionError):
        raise ValueError("can't be read; copy all of it") from None
    if not isinstance(content, dict):
        raise ValueError("can't be read; copy all of it")
    return content


_ALPHABET = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


class _Ambiguous(Exception):
    pass


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Ambiguous
    return found


def _refuse(constant: str) -> None:
    raise ValueError(constant)
