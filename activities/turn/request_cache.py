"""Caches each conversation's request prefix, so a turn only loads the messages added since.

The cache saves work and decides nothing: the rows that a prefix is made of never change. A conversation that is not in
it, because another worker made the last turn, or this one has restarted or evicted it, is loaded whole.
"""

import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from clients.model.protocol import StoredConversation

_MAX_BYTES = 64_000_000
"""Bytes of prefixes that a worker keeps; the least recently used are evicted."""


@dataclass
class RequestPrefix:
    """A conversation up to a turn's user message, which begins those of the next turns."""

    conversation: StoredConversation
    prefix: int = 0
    turn: int = 0
    size: int = field(init=False)
    """Its length in bytes."""

    def __post_init__(self) -> None:
        self.size = sum(map(len, (self.conversation.system, self.conversation.tools, *self.conversation.messages)))

    def add(self, turn: int, messages: Sequence[str]) -> None:
        """Add the messages up to this turn's."""
        new = tuple(message.encode() for message in messages)
        self.conversation = replace(self.conversation, messages=(*self.conversation.messages, *new))
        self.size += sum(map(len, new))
        self.turn = turn


class PrefixCache:
    """The prefixes used last. Attempts that run at the same time share nothing: `pop` hands a prefix to one of them."""

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._prefixes: OrderedDict[uuid.UUID, RequestPrefix] = OrderedDict()

    def pop(self, build_id: uuid.UUID, prefix: int, turn: int) -> RequestPrefix | None:
        """Remove what is cached of the build, and return it if it is this prefix and has no message beyond the turn."""
        cached = self._prefixes.pop(build_id, None)
        return cached if cached is not None and cached.prefix == prefix and cached.turn <= turn else None

    def put(self, build_id: uuid.UUID, prefix: RequestPrefix) -> None:
        """Keep the prefix for the next turn."""
        self._prefixes[build_id] = prefix
        while sum(each.size for each in self._prefixes.values()) > self._max_bytes:
            self._prefixes.popitem(last=False)
