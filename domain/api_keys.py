"""API keys: their form `cf_<id>_<secret><checksum>` in hexadecimal digits, and the rules for making one.

The id is public and finds the key's row. The secret has 256 bits, so its SHA-256 alone keeps it. The checksum tells a
key that was cut short from one that is wrong.
"""

import hashlib
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from domain.errors import CredentialRefused, InvalidInput
from domain.identity import Scope

PREFIX = "cf_"
ID_DIGITS = 16
SECRET_DIGITS = 64
_CHECKSUM_DIGITS = 8

LENGTH = len(PREFIX) + ID_DIGITS + 1 + SECRET_DIGITS + _CHECKSUM_DIGITS
"""Characters of a key."""

MAX_KEYS = 50
"""Keys that a user may have at once; those that were revoked or have expired do not count."""

NAME_MAX_CHARACTERS = 100

LIFETIME = timedelta(days=90)
"""A key lives this long unless its maker says otherwise."""

LONGEST_LIFETIME = timedelta(days=366)

OVERLAP = timedelta(hours=24)
"""After a rotation the old key works this much longer unless its user says otherwise."""

LONGEST_OVERLAP = timedelta(days=7)

_FORM = re.compile(
    rf"cf_(?P<id>[0-9a-f]{{{ID_DIGITS}}})_(?P<secret>[0-9a-f]{{{SECRET_DIGITS}}})"
    rf"(?P<checksum>[0-9a-f]{{{_CHECKSUM_DIGITS}}})"
)


@dataclass(frozen=True)
class ApiKeyText:
    """The parts of a key."""

    id: str
    secret: str

    @classmethod
    def parse(cls, text: str) -> "ApiKeyText | None":
        """Read a key; None if the text is not a whole one."""
        match = _FORM.fullmatch(text)
        if match is None or match["checksum"] != _checksum(match["id"], match["secret"]):
            return None
        return cls(match["id"], match["secret"])

    @property
    def secret_hash(self) -> bytes:
        """SHA-256 of the secret, which is what the database stores."""
        return hashlib.sha256(self.secret.encode()).digest()

    def __str__(self) -> str:
        return f"{PREFIX}{self.id}_{self.secret}{_checksum(self.id, self.secret)}"

    def __repr__(self) -> str:
        return f"ApiKeyText(id={self.id!r})"


def is_key(credential: str) -> bool:
    """Whether a credential is meant to be an API key, whole or not."""
    return credential.startswith(PREFIX)


def parse(credential: str) -> ApiKeyText:
    """Read a key.

    Raises:
        CredentialRefused: it is not a whole one.
    """
    key = ApiKeyText.parse(credential)
    if key is None:
        raise CredentialRefused(
            f"This API key is incomplete or mistyped. Copy it again: it begins with {PREFIX} and has {LENGTH} "
            "characters. If you no longer have it, make another: `cofounder keys create`.",
            "key-incomplete",
        )
    return key


def check_name(name: str) -> str:
    """Return the name of a new key without spaces around it.

    Raises:
        InvalidInput: it is empty, too long or not printable.
    """
    name = name.strip()
    if not 1 <= len(name) <= NAME_MAX_CHARACTERS or not name.isprintable():
        raise InvalidInput(
            f"A key's name has 1 to {NAME_MAX_CHARACTERS} printable characters. Say which program uses the key.",
            "name",
        )
    return name


def check_scopes(scopes: Iterable[Scope], maker: frozenset[Scope]) -> frozenset[Scope]:
    """Return the scopes of something that its maker gives away: a key or a sign-in.

    Raises:
        InvalidInput: there is none, or the maker does not have one of them.
    """
    wanted = frozenset(scopes)
    if not wanted:
        raise InvalidInput(f"Name at least one scope. You have: {_listed(maker)}.", "scopes")
    if excess := wanted - maker:
        raise InvalidInput(
            f"You can't give away {_listed(excess)}, because you do not have that yourself. You have: "
            f"{_listed(maker)}.",
            "scopes",
        )
    return wanted


def expiry(now: datetime, lifetime: timedelta | None, maker_expires_at: datetime | None) -> datetime:
    """When a new key expires: after `lifetime`, and never after the key that makes it.

    Otherwise a stolen key could live on in one that it made. Without a lifetime it is the default, or as long as the
    maker's key lives.

    Raises:
        InvalidInput: the lifetime is too long or too short, or ends after the maker's.
    """
    if lifetime is not None and not timedelta(0) < lifetime <= LONGEST_LIFETIME:
        raise InvalidInput(f"A key lives between 1 and {LONGEST_LIFETIME.days} days.", "days")
    expires_at = now + (lifetime or LIFETIME)
    if maker_expires_at is None or expires_at <= maker_expires_at:
        return expires_at
    if lifetime is not None:
        raise InvalidInput(
            f"The key that you use expires on {maker_expires_at:%Y-%m-%d}, and what it makes can't live longer. Ask "
            "for fewer days, or make the key while signed in.",
            "days",
        )
    return maker_expires_at


def _listed(scopes: Iterable[Scope]) -> str:
    return ", ".join(sorted(scopes))


def _checksum(key_id: str, secret: str) -> str:
    return f"{zlib.crc32(f'{key_id}_{secret}'.encode()):08x}"
