"""The prompt cache: which input tokens of a request are cache reads, cache writes or plain input.

The rules come from the vendor's documentation. An entry is a prefix that ends at a breakpoint. A request reads the
longest entry at a breakpoint or in the blocks before it, and writes the rest up to its own breakpoints if the prefix is
long enough for the model.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from local.rehearsal.errors import invalid
from local.rehearsal.models import cache_minimum
from local.rehearsal.prefix import Prefix

LOOKBACK = 20
"""Positions up to and including a breakpoint that are compared with entries. A block is a position; a run of `tool_use`
blocks is one, and so is a run of `tool_result` blocks (the vendor's page "Prompt caching")."""

_RUNS = ("tool_use", "tool_result")

MAX_BREAKPOINTS = 4
"""Blocks of a request that may have `cache_control`."""

LIFETIME_SECONDS = {"5m": 300.0, "1h": 3600.0}
"""Seconds that an entry lives after its last use."""


@dataclass(frozen=True)
class InputUsage:
    """Input tokens of one request by class. The classes do not overlap."""

    input: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    cache_read: int = 0


@dataclass
class _Entry:
    ttl: str
    expires: float


def breakpoints(prefix: Prefix, top_level: dict[str, Any] | None) -> list[tuple[int, str]]:
    """Return where the request asks for cache entries: block index and lifetime, in order.

    Raises:
        ApiError: there are too many, a short lifetime precedes a long one, or the last block has two lifetimes.
    """
    marks = {index: block.cache_ttl for index, block in enumerate(prefix.blocks) if block.cache_ttl}
    if any(prefix.blocks[index].kind in ("thinking", "redacted_thinking") for index in marks):
        raise invalid("cache_control cannot be set on thinking blocks")
    if top_level:
        ttl = str(top_level.get("ttl", "5m"))
        cacheable = [
            index
            for index, block in enumerate(prefix.blocks)
            if block.tokens and block.kind not in ("thinking", "redacted_thinking")
        ]
        if cacheable:
            if marks.get(cacheable[-1], ttl) != ttl:
                raise invalid("cache_control: the top-level ttl differs from that of the last block")
            marks[cacheable[-1]] = ttl
    if len(marks) > MAX_BREAKPOINTS:
        raise invalid(f"A maximum of {MAX_BREAKPOINTS} blocks with cache_control may be provided. Found {len(marks)}.")
    ordered = sorted(marks.items())
    if unknown := {ttl for _, ttl in ordered} - set(LIFETIME_SECONDS):
        raise invalid(f"cache_control.ttl: must be 5m or 1h, not {', '.join(sorted(map(str, unknown)))}")
    lifetimes = [ttl for _, ttl in ordered]
    if lifetimes != sorted(lifetimes, key=["1h", "5m"].index):
        raise invalid("cache_control: a ttl='1h' block must not come after a ttl='5m' block")
    return [(index, str(ttl)) for index, ttl in ordered]


def _window(prefix: Prefix, index: int) -> Iterator[int]:
    """Yield the blocks, from a breakpoint backwards, that are compared with entries."""
    positions, kind = 0, ""
    for at in range(index, -1, -1):
        block = prefix.blocks[at]
        if block.kind not in _RUNS or block.kind != kind:
            positions += 1
        if positions > LOOKBACK:
            return
        kind = block.kind
        yield at


class PromptCache:
    """All live entries of this server. `clock` returns seconds, and tests advance it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: dict[str, _Entry] = {}

    def uncached(self, prefix: Prefix, marks: list[tuple[int, str]]) -> int:
        """Return the tokens of a request that are not cached. Changes nothing."""
        now = self._clock()
        cached = -1
        for index, _ in marks:
            live = (
                at
                for at in _window(prefix, index)
                if (entry := self._entries.get(prefix.blocks[at].key)) and entry.expires > now
            )
            cached = max(cached, next(live, -1))
        return sum(block.tokens for block in prefix.blocks[cached + 1 :])

    def serve(self, model: str, prefix: Prefix, marks: list[tuple[int, str]]) -> InputUsage:
        """Read, write and refresh entries for one request, and return its usage."""
        now = self._clock()
        self._entries = {key: entry for key, entry in self._entries.items() if entry.expires > now}
        totals, total = [], 0
        for block in prefix.blocks:
            total += block.tokens
            totals.append(total)
        read_at = -1
        for index, _ in marks:
            hit = next((i for i in _window(prefix, index) if prefix.blocks[i].key in self._entries), -1)
            read_at = max(read_at, hit)
        read = 0
        if read_at >= 0:
            read = totals[read_at]
            entry = self._entries[prefix.blocks[read_at].key]
            entry.expires = now + LIFETIME_SECONDS[entry.ttl]
        end, writes = read, {"5m": 0, "1h": 0}
        for index, ttl in marks:
            key = prefix.blocks[index].key
            if totals[index] < cache_minimum(model):
                continue
            if (existing := self._entries.get(key)) is not None:
                existing.expires = now + LIFETIME_SECONDS[existing.ttl]
            else:
                self._entries[key] = _Entry(ttl, now + LIFETIME_SECONDS[ttl])
            if totals[index] > end:
                writes[ttl] += totals[index] - end
                end = totals[index]
        return InputUsage(input=total - end, cache_write_5m=writes["5m"], cache_write_1h=writes["1h"], cache_read=read)
