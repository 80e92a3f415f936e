"""Which part of a fleet is at its limit at how many builds, from what a turn costs. Pure; `bench/fleet.py` measures.

The limits are those of vendors' contracts, of settings and of hardware; each says where it comes from. All rates follow
from the turns a second: a build that works takes a turn every `turn_seconds`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

COLUMNS = (1_000, 10_000, 100_000)
"""Builds that work at once, in the table."""

SANDBOXES_A_BUILD = 1.15
"""A build's own sandbox, and a share of the gates' and the previews'."""

OUTPUT_TOKENS = 700
"""Tokens that the model answers with in a turn."""


@dataclass(frozen=True)
class Turn:
    """What one turn costs in a fleet in which each build takes a turn every `seconds`."""

    seconds: float
    actions: float
    """Of Temporal, as its cloud counts them: starts of activities and retries, heartbeats, signals, timers, upserts."""
    requests: float
    """To Temporal's frontend."""
    history_events: float
    commits: float
    """Of PostgreSQL."""
    wal_bytes: float
    table_bytes: float
    """By which tables and indexes grow."""
    store_bytes: float
    worker_ms: float
    """CPU milliseconds of the workers."""
    temporal_ms: float
    postgres_ms: float
    busy_slots: float
    """Activities of a build that run at once, on average."""


@dataclass(frozen=True)
class Limits:
    """What the parts can take."""

    cloud_actions: float = 500
    """Actions a second of a new namespace of Temporal Cloud."""
    cloud_requests: float = 2_000
    """Requests a second there."""
    commits: float = 2_539
    """Commits a second of one PostgreSQL whose disk flushes in 0.4 ms, with a notification in each; 394 at 2 ms."""
    worker_slots: int = 100
    """MAX_ACTIVITIES."""
    worker_connections: int = 42
    """Of one worker, with the default of DATABASE_CONNECTIONS."""
    connections: int = 197
    """That the Compose file's PostgreSQL gives (max_connections=200)."""
    sandboxes: int = 100
    """That E2B runs at once on Pro."""
    output_tokens: float = 800_000
    """Tokens a minute that Anthropic's tier Scale lets a model answer with."""
    model_requests: float = 4_000
    """Requests a minute there."""


@dataclass(frozen=True)
class Wall:
    """One part: what it needs at each number of builds, and at how many its limit is reached."""

    name: str
    needs: Sequence[float]
    """At each of `COLUMNS`."""
    limit: str
    builds: float | None
    """None: it has no limit of its own, or one that more machines raise."""


def walls(turn: Turn, limits: Limits = Limits()) -> list[Wall]:
    """The table, the part that is at its limit first above the others; those without a limit last."""
    of_a_second = 1 / turn.seconds

    def wall(name: str, of_a_build: float, limit: float | None, words: str) -> Wall:
        needs = [of_a_build * builds for builds in COLUMNS]
        return Wall(name, needs, words, None if limit is None else limit / of_a_build)

    workers = turn.busy_slots / limits.worker_slots
    found = [
        wall("sandboxes", SANDBOXES_A_BUILD, limits.sandboxes, f"E2B Pro: {limits.sandboxes:,}"),
        wall(
            "model's output tokens a minute",
            60 * OUTPUT_TOKENS * of_a_second,
            limits.output_tokens,
            f"Anthropic Scale: {limits.output_tokens:,.0f}",
        ),
        wall("model requests a minute", 60 * of_a_second, limits.model_requests, f"{limits.model_requests:,.0f}"),
        wall(
            "connections to PostgreSQL",
            workers * limits.worker_connections,
            limits.connections,
            f"Compose: {limits.connections:,}; a pooler raises it",
        ),
        wall(
            "Temporal actions a second", turn.actions * of_a_second, limits.cloud_actions, "Cloud: 500, on request more"
        ),
        wall(
            "Temporal requests a second",
            turn.requests * of_a_second,
            limits.cloud_requests,
            "Cloud: 2,000, on request more",
        ),
        wall(
            "commits a second",
            turn.commits * of_a_second,
            limits.commits,
            f"one PostgreSQL, 0.4 ms a flush: {limits.commits:,.0f}",
        ),
        wall("workers by slots", workers, None, f"{limits.worker_slots} each: more workers"),
        wall("cores of workers", turn.worker_ms / 1000 * of_a_second, None, "more workers"),
        wall("cores of Temporal", turn.temporal_ms / 1000 * of_a_second, None, "its own servers"),
        wall("cores of PostgreSQL", turn.postgres_ms / 1000 * of_a_second, None, "one machine"),
        wall("WAL, MB a second", turn.wal_bytes / 1e6 * of_a_second, None, "bandwidth of the archive"),
        wall("tables, GB a day", turn.table_bytes / 1e9 * 86_400 * of_a_second, None, "CONVERSATION_DAYS frees them"),
        wall("store, GB a day", turn.store_bytes / 1e9 * 86_400 * of_a_second, None, "five snapshots a build stay"),
        wall("history events a second", turn.history_events * of_a_second, None, "Temporal's database"),
    ]
    return sorted(found, key=_order)


def _order(wall: Wall) -> float:
    return float("inf") if wall.builds is None else wall.builds


def table(rows: Sequence[Wall], write: Callable[[str], object]) -> None:
    """Write the table in Markdown."""
    heads = [f"{builds:,}" for builds in COLUMNS]
    write(f"| builds that work at once | {' | '.join(heads)} | limit | reached at |")
    write(f"| --- | {' | '.join('--:' for _ in heads)} | --- | --: |")
    for row in rows:
        needs = " | ".join(f"{need:,.{0 if need >= 10 else 2}f}" for need in row.needs)
        write(f"| {row.name} | {needs} | {row.limit} | {'' if row.builds is None else f'{row.builds:,.0f}'} |")
