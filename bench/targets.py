"""What the program is held to, and whether a run's figures meet it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.throughput import Throughput
from bench.turns import TurnCost
from bench.viewers import Latency

BEYOND_PLAIN_MS = 45.0
WORKER_CPU_MS = 15.0
BYTES_PER_BYTE = 1.2
BUILDS_PER_MINUTE = 100.0
VIEWER_P99_MS = 100.0

FEWEST_TURNS = 400
"""Tables and indexes grow by pages, and by whole further files: the first turns in a small database say little."""


@dataclass(frozen=True)
class Target:
    """A bound, and what was measured."""

    name: str
    bound: str
    measured: float
    met: bool


def of_turns(costs: Sequence[TurnCost]) -> Iterator[Target]:
    """At any length."""
    for cost in costs:
        name = f"{cost.turns} turns"
        yield _at_most(f"{name}: ms a turn beyond the plain loop", cost.beyond_plain, BEYOND_PLAIN_MS)
        yield _at_most(f"{name}: ms of CPU a turn beyond the plain loop", cost.cpu_beyond_plain, WORKER_CPU_MS)
        if cost.turns >= FEWEST_TURNS:
            yield _at_most(f"{name}: database bytes for a byte of conversation", cost.bytes_per_byte, BYTES_PER_BYTE)


def of_throughput(found: Sequence[Throughput]) -> Iterator[Target]:
    """The rate with one worker, at 100 builds at once; the bytes of short builds, where there are enough of them."""
    for each in found:
        if each.builds * each.turns >= FEWEST_TURNS:
            name = f"{each.builds} builds of {each.turns} turns: database bytes for a byte of conversation"
            yield _at_most(name, each.bytes_per_byte, BYTES_PER_BYTE)
        if each.builds == 100 and each.workers == 1:
            name = "100 builds at once, one worker: builds a minute"
            bound = f"at least {BUILDS_PER_MINUTE:g}"
            yield Target(name, bound, each.per_minute, each.per_minute >= BUILDS_PER_MINUTE)


def of_viewers(found: Sequence[Latency]) -> Iterator[Target]:
    """At 200 viewers."""
    for each in found:
        if each.viewers == 200:
            yield _at_most("200 viewers: ms from commit to viewer, p99", each.p99, VIEWER_P99_MS)


def _at_most(name: str, measured: float, bound: float) -> Target:
    return Target(name, f"at most {bound:g}", measured, measured <= bound)
