"""The form of API keys: `cf_<id>_<secret><checksum>`, in hexadecimal digits.

The id is public and finds the key's row. The secret has 256 bits, so its SHA-256 alone keeps it. The checksum tells a
key that was cut short from one that is wrong.
"""

import hashlib
import re
import zlib
from dataclasses import dataclass

PREFIX = "cf_"
ID_DIGITS = 16
SECRET_DIGITS = 64
_CHECKSUM_DIGITS = 8

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


def _checksum(key_id: str, secret: str) -> str:
    return f"{zlib.crc32(f'{key_id}_{secret}'.encode()):08x}"
