"""The public keys of an issuer, and the check of a signature with one of them."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import JWKRegistry, Key, RSAKey

from clients.oidc.documents import Unreadable
from domain.tokens import LONGEST_TOKEN

_ASYMMETRIC = ("RSA", "EC", "OKP")
_SMALLEST_RSA = 2048
_MOST_KEYS = 100


def public_keys(document: Mapping[str, Any]) -> Sequence[Key]:
    """The keys of a JWK set that can verify signatures. Others are left out: symmetric, private, short or unknown ones.

    Raises:
        Unreadable: it is not a JWK set.
    """
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise Unreadable("the document with its keys has no list `keys`")
    return [key for entry in entries[:_MOST_KEYS] if (key := _public_key(entry)) is not None]


def _public_key(entry: object) -> Key | None:
    if not isinstance(entry, dict) or entry.get("kty") not in _ASYMMETRIC or "d" in entry:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # short keys are left out below
            key = JWKRegistry.import_key(entry)
        key.check_use("sig")
        key.check_key_op("verify")
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return None if isinstance(key, RSAKey) and key.raw_value.key_size < _SMALLEST_RSA else key


def keys_for(keys: Sequence[Key], kid: str | None, algorithm: str) -> list[Key]:
    """The keys with which a token may be signed: of that id if it names one, and made for its algorithm."""
    return [key for key in keys if (kid is None or key.kid == kid) and _fits(key, algorithm)]


def _fits(key: Key, algorithm: str) -> bool:
    try:
        jws.JWSRegistry.algorithms[algorithm].check_key(key)
    except JoseError:
        return False
    return True


def is_signed(token: str, key: Key, algorithm: str) -> bool:
    """Whether the token's signature is by this key and algorithm."""
    registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    registry.max_header_length = LONGEST_TOKEN
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # RFC 9864 renames EdDSA; providers still use the old name
            jws.deserialize_compact(token, key, registry=registry)
    except (JoseError, ValueError):
        return False
    return True
