"""The keys that encrypt what Temporal stores of workflows: inputs, results, errors, memos and summaries.

Each key has a check value, which the database keeps: without a key, no build that it has written to can continue.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from domain.product_secrets import parse_keys

PLAIN = "plain"
"""In the place of the first key: write plain text, and decrypt with the other keys."""


@dataclass(frozen=True)
class PayloadKeys:
    """What PAYLOAD_KEY says. `writes` is the id of the key that encrypts; None: payloads are written as plain text."""

    keys: Mapping[str, bytes] = field(default_factory=dict)
    writes: str | None = None

    @property
    def check_values(self) -> dict[str, str]:
        """By key id, what tells this key from another of the same id. It says nothing about the key itself."""
        return {key_id: _digest(key, b"check") for key_id, key in self.keys.items()}

    def label(self, text: str) -> str:
        """What stands in Temporal's searchable fields in place of a user's id: an HMAC, unless payloads are plain."""
        return text if self.writes is None else _digest(self.keys[self.writes], b"label\n" + text.encode())[:32]


def parse_payload_keys(text: str) -> PayloadKeys:
    """Read PAYLOAD_KEY: `id:key` or several of them, separated by commas. The first encrypts, all decrypt.

    If the first is `plain`, nothing is encrypted.

    Raises:
        ValueError: says what is wrong, and quotes no key.
    """
    first, _, rest = text.partition(",")
    if first.strip() == PLAIN:
        return PayloadKeys(parse_keys(rest))
    keys = parse_keys(text)
    return PayloadKeys(keys, next(iter(keys)))


def payload_key_texts(text: str) -> list[str]:
    """The keys in PAYLOAD_KEY as they stand there, without their ids."""
    return [key.strip() for _, _, key in (each.partition(":") for each in text.split(",")) if key]


def lost_key(ours: PayloadKeys, known: Mapping[str, str]) -> str | None:
    """What is wrong with the keys of this process, in sentences; None if nothing is.

    Args:
        known: the check values of the keys that have encrypted something, by id.
    """
    check_values = ours.check_values
    for key_id, value in known.items():
        if key_id not in check_values:
            return (
                f"Builds have written to Temporal with the key {key_id}, which PAYLOAD_KEY does not have, so they "
                f"could not continue. Add {key_id}:… from your copy of the key to PAYLOAD_KEY. If Temporal has no "
                f"history with it any more, run `cofounder payload-keys retire {key_id}`."
            )
        if not hmac.compare_digest(check_values[key_id], value):
            return (
                f"The key {key_id} in PAYLOAD_KEY is another one than the key {key_id} with which builds have written "
                "to Temporal. Put the right one back, and give a new key another id."
            )
    return None


def _digest(key: bytes, text: bytes) -> str:
    return hmac.new(key, b"cofounder payload key\n" + text, sha256).hexdigest()
