"""What this process has sent of each conversation, so that a turn reads and joins only what is new in it.

It spares work and decides nothing: the rows that these texts are made of never change. Whatever is not here, because
another worker made the last turn, or this one was started anew, or has forgotten it, is read whole.
"""

import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

_MOST_BYTES = 64_000_000


@dataclass
class Sent:
    """A conversation up to the user message of a turn, as the bytes that are sent before those of the next turns."""

    text: bytearray = field(default_factory=bytearray)
    turn: int = 0
    _is_first: bool = True

    def add(self, turn: int, messages: Sequence[str]) -> None:
        """Add the messages up to this turn's."""
        for message in messages:
            self.text += (message if self._is_first else "," + message).encode()
            self._is_first = False
        self.turn = turn


class SentConversations:
    """Those that were used last. Attempts that run at the same time share nothing: who takes one, has it alone."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[uuid.UUID, Sent] = OrderedDict()

    def take(self, build_id: uuid.UUID, turn: int) -> Sent | None:
        """What was sent of the build's conversation, if no more than is part of this turn; it is forgotten here."""
        sent = self._kept.pop(build_id, None)
        return sent if sent is not None and sent.turn <= turn else None

    def keep(self, build_id: uuid.UUID, sent: Sent) -> None:
        """Keep it for the next turn."""
        self._kept[build_id] = sent
        while sum(len(each.text) for each in self._kept.values()) > self._most_bytes:
            self._kept.popitem(last=False)
