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

TURNS_A_BUILD = 85
"""Turns that a plan of $1.67 a day pays for in a day: as many as are between two starts of a build's sandbox."""

STARTS_A_BUILD = 2
"""Sandboxes that are created or resumed in as many turns: the build's own, and one for a gate."""

LOCK_MS = 5.4
"""Milliseconds in which a turn has the lock on its user's day: a reservation and its settlement, 2.7 ms each
(`python -m bench.sleep reserve`). Totals of days are kept, so no call of the day is summed up."""

REAPER_MS = 3.5
"""Milliseconds of the reaper for each open build when it compares all of them (`python -m bench.reaper --builds 2000`,
on two cores that other work kept busy). Other looks compare a sixteenth."""


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
    """By which the object store grows; no part of the table, since `bench/fleet.py` takes no snapshots."""
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
    commits: float = 6_042
    """Commits a second of one PostgreSQL whose disk flushes in 0.4 ms. Those of turns have no notification:
    with one in each it would be 2,539."""
    worker_slots: int = 100
    """MAX_ACTIVITIES."""
    worker_connections: int = 42
    """Of one worker, with the default of DATABASE_CONNECTIONS."""
    connections: int = 197
    """That the Compose file's PostgreSQL gives (max_connections=200)."""
    sandboxes: int = 100
    """That E2B runs at once on Pro."""
    sandbox_starts: float = 5
    """Sandboxes that E2B creates or resumes a second."""
    morning_seconds: int = 1_800
    """MORNING_SECONDS: builds that wake for a new day do so within it."""
    reaper_seconds: float = 60
    """REAPER_SECONDS: a look should not take longer than until the next one."""
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
        wall(
            "sandboxes started a second",
            STARTS_A_BUILD / TURNS_A_BUILD * of_a_second,
            limits.sandbox_starts,
            f"E2B: {limits.sandbox_starts:g}",
        ),
        wall(
            "resumed a second in the morning, if as many sleep",
            1 / limits.morning_seconds,
            limits.sandbox_starts,
            f"E2B: {limits.sandbox_starts:g}; MORNING_SECONDS raises it",
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
        wall(
            "share of time in one user's lock, if all builds are theirs",
            LOCK_MS / 1000 * of_a_second,
            1,
            "their calls take turns",
        ),
        wall(
            "seconds in which the reaper compares all",
            REAPER_MS / 1000,
            limits.reaper_seconds,
            f"REAPER_SECONDS: {limits.reaper_seconds:g}",
        ),
        wall("turns a second", of_a_second, None, f"one each {turn.seconds:g} s"),
        wall("workers by slots", workers, None, f"{limits.worker_slots} each: more workers"),
        wall("cores of workers", turn.worker_ms / 1000 * of_a_second, None, "more workers"),
        wall("cores of Temporal", turn.temporal_ms / 1000 * of_a_second, None, "its own servers"),
        wall("cores of PostgreSQL", turn.postgres_ms / 1000 * of_a_second, None, "one machine"),
        wall("WAL, MB a second", turn.wal_bytes / 1e6 * of_a_second, None, "bandwidth of the archive"),
        wall("tables, GB a day", turn.table_bytes / 1e9 * 86_400 * of_a_second, None, "CONVERSATION_DAYS frees them"),
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
