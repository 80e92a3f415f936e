"""The performance targets, and whether a run's figures meet them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.throughput import Throughput
from bench.turns import TurnCost
from bench.viewers import Latency

BEYOND_PLAIN_MS = 45.0
"""Most milliseconds that a turn may take beyond the same turn in the plain loop."""

WORKER_CPU_MS = 15.0
"""Most milliseconds of CPU that a turn may cost beyond the plain loop."""

TIMES_PLAIN = 2.0
"""Most that a turn may take, as a multiple of the same turn in the plain loop."""

TIMES_PLAIN_CPU = 2.2
"""Most CPU of the worker that a turn may cost, as a multiple of the plain loop's."""

REPLAY_MS = 3.0
"""Most milliseconds of replay for each turn."""

BYTES_PER_BYTE = 1.2
"""Most bytes that the database may grow by for each byte of conversation."""

BUILDS_PER_MINUTE = 100.0
"""Fewest builds a minute that one worker must finish when 100 run at once."""

VIEWER_P99_MS = 100.0
"""Most milliseconds from commit to viewer at the 99th percentile, with 200 viewers."""

FEWEST_REPLAYED = 100
"""Fewest turns for which the replay is judged: the first milliseconds are the replayer's own."""

FEWEST_TURNS = 400
"""Fewest turns for which database bytes are judged: tables grow by pages and whole files, so few turns show little."""


@dataclass(frozen=True)
class Target:
    """A bound, and what was measured."""

    name: str
    bound: str
    measured: float
    met: bool


def of_turns(costs: Sequence[TurnCost]) -> Iterator[Target]:
    """Targets of a turn, at any length of build."""
    for cost in costs:
        name = f"{cost.turns} turns"
        yield _at_most(f"{name}: ms a turn beyond the plain loop", cost.beyond_plain, BEYOND_PLAIN_MS)
        yield _at_most(f"{name}: ms of CPU a turn beyond the plain loop", cost.cpu_beyond_plain, WORKER_CPU_MS)
        yield _at_most(f"{name}: times the plain loop's time", cost.wall / cost.plain_wall, TIMES_PLAIN)
        yield _at_most(f"{name}: times the plain loop's CPU", cost.worker_cpu / cost.plain_cpu, TIMES_PLAIN_CPU)
        if cost.turns >= FEWEST_REPLAYED:
            yield _at_most(f"{name}: ms to replay a turn", cost.replay_ms / cost.turns, REPLAY_MS)
        if cost.turns >= FEWEST_TURNS:
            yield _at_most(f"{name}: database bytes for a byte of conversation", cost.bytes_per_byte, BYTES_PER_BYTE)


def of_throughput(results: Sequence[Throughput]) -> Iterator[Target]:
    """Targets of 100 builds at once with one worker, and of the database bytes of enough short builds."""
    for each in results:
        if each.builds * each.turns >= FEWEST_TURNS:
            name = f"{each.builds} builds of {each.turns} turns: database bytes for a byte of conversation"
            yield _at_most(name, each.bytes_per_byte, BYTES_PER_BYTE)
        if each.builds == 100 and each.workers == 1:
            name = "100 builds at once, one worker: builds a minute"
            bound = f"at least {BUILDS_PER_MINUTE:g}"
            yield Target(name, bound, each.per_minute, each.per_minute >= BUILDS_PER_MINUTE)


def of_viewers(results: Sequence[Latency]) -> Iterator[Target]:
    """The target of 200 viewers."""
    for each in results:
        if each.viewers == 200:
            yield _at_most("200 viewers: ms from commit to viewer, p99", each.p99, VIEWER_P99_MS)


def _at_most(name: str, measured: float, bound: float) -> Target:
    return Target(name, f"at most {bound:g}", measured, measured <= bound)
