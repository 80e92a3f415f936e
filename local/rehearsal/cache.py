"""The prompt cache: which input tokens of a request are read, written or plain.

The rules are those of the vendor's documentation: an entry is a prefix that ends at a breakpoint; a request reads the
longest entry that it finds at a breakpoint or in the blocks before it, and writes what lies between that and its own
breakpoints, where the prefix is long enough for the model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from local.rehearsal.errors import invalid
from local.rehearsal.models import cache_minimum
from local.rehearsal.prefix import Prefix

LOOKBACK_BLOCKS = 20
"""How many blocks, the breakpoint's own included, are compared with entries."""

MAX_BREAKPOINTS = 4

LIFETIME_SECONDS = {"5m": 300.0, "1h": 3600.0}
"""Since the entry's last use."""


@dataclass(frozen=True)
class InputUsage:
    """Input tokens of one request by class; the classes do not overlap."""

    input: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    cache_read: int = 0


@dataclass
class _Entry:
    ttl: str
    expires: float


def breakpoints(prefix: Prefix, top_level: dict[str, Any] | None) -> list[tuple[int, str]]:
    """Where the request asks for cache entries: block index and lifetime, in order.

    Raises:
        ApiError: too many, a short lifetime before a long one, or a contradiction on the last block.
    """
    marked = {index: block.cache_ttl for index, block in enumerate(prefix.blocks) if block.cache_ttl}
    if any(prefix.blocks[index].kind in ("thinking", "redacted_thinking") for index in marked):
        raise invalid("cache_control cannot be set on thinking blocks")
    if top_level:
        ttl = str(top_level.get("ttl", "5m"))
        cacheable = [
            index
            for index, block in enumerate(prefix.blocks)
            if block.tokens and block.kind not in ("thinking", "redacted_thinking")
        ]
        if cacheable:
            if marked.get(cacheable[-1], ttl) != ttl:
                raise invalid("cache_control: the top-level ttl differs from that of the last block")
            marked[cacheable[-1]] = ttl
    if len(marked) > MAX_BREAKPOINTS:
        raise invalid(f"A maximum of {MAX_BREAKPOINTS} blocks with cache_control may be provided. Found {len(marked)}.")
    ordered = sorted(marked.items())
    if unknown := {ttl for _, ttl in ordered} - set(LIFETIME_SECONDS):
        raise invalid(f"cache_control.ttl: must be 5m or 1h, not {', '.join(sorted(map(str, unknown)))}")
    lifetimes = [ttl for _, ttl in ordered]
    if lifetimes != sorted(lifetimes, key=["1h", "5m"].index):
        raise invalid("cache_control: a ttl='1h' block must not come after a ttl='5m' block")
    return [(index, str(ttl)) for index, ttl in ordered]


class PromptCache:
    """All live entries of this server. `clock` gives seconds; tests move it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: dict[str, _Entry] = {}

    def serve(self, model: str, prefix: Prefix, marked: list[tuple[int, str]]) -> InputUsage:
        """Account for one request that is being answered: reads, writes and refreshes entries."""
        now = self._clock()
        self._entries = {key: entry for key, entry in self._entries.items() if entry.expires > now}
        reached, total = [], 0
        for block in prefix.blocks:
            total += block.tokens
            reached.append(total)
        read_at = -1
        for index, _ in marked:
            window = range(index, max(-1, index - LOOKBACK_BLOCKS), -1)
            found = next((i for i in window if prefix.blocks[i].key in self._entries), -1)
            read_at = max(read_at, found)
        read = 0
        if read_at >= 0:
            read = reached[read_at]
            entry = self._entries[prefix.blocks[read_at].key]
            entry.expires = now + LIFETIME_SECONDS[entry.ttl]
        covered, written = read, {"5m": 0, "1h": 0}
        for index, ttl in marked:
            key = prefix.blocks[index].key
            if reached[index] < cache_minimum(model):
                continue
            if (known := self._entries.get(key)) is not None:
                known.expires = now + LIFETIME_SECONDS[known.ttl]
            else:
                self._entries[key] = _Entry(ttl, now + LIFETIME_SECONDS[ttl])
            if reached[index] > covered:
                written[ttl] += reached[index] - covered
                covered = reached[index]
        return InputUsage(
            input=total - covered, cache_write_5m=written["5m"], cache_write_1h=written["1h"], cache_read=read
        )
