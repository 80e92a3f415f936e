"""Measure how many rows the queries of the reaper, prober, outbox, retention and metrics read in a large database.

    python -m bench.rows_read [--builds 20000] [--closed 10] [--turns 3]

The database has open builds, ten times as many closed ones, most of these archived. A query that reads a whole large
table is marked: it grows with what has ended.
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text

from bench.machine import machine
from db import (
    audit,
    build_archives,
    builds,
    bulk_runs,
    dependencies,
    drift,
    erasures,
    fleet_builds,
    fleet_figures,
    operator_figures,
    permits,
    reaper,
    steering,
    tombstones,
    webhooks,
)
from db.session import Sessions, make_engine, make_sessions
from db.transaction import Transaction, transaction
from domain.fleet_filter import FleetFilter, FleetOrder
from domain.status import Dependency
from local.stack import LocalStack
from tests.harness.api_server import new_database
from tests.harness.fleet import fill_fleet

LARGE = 10_000
"""Rows. A table with fewer may be read whole."""

_ENDED = (
    """update builds set closed_at = closed_at - random() * interval '300 days' where closed_at is not null""",
    """insert into build_archives (build_id, object_key, bytes, sha256, rows, images)
       select id, 'archives/' || id, 1, '', '{}', '[]' from builds where closed_at is not null
       order by closed_at, id limit :archived""",
    """insert into founder_messages (build_id, number, text, turn, created_at, read_at)
       select id, 1, 'Blue.', 1, now() - interval '4 days', now() from builds""",
    """insert into previews (build_id, state, seq, expires_at)
       select id, case when random() < 0.01 then 'open' else 'closed' end, 1, now() from builds
       where closed_at is not null""",
    "analyze",
)
"""What builds that have ended leave, beside what `fill_fleet` inserts."""

NEWEST = FleetOrder.parse("-created_at")

Query = Callable[[Transaction], Awaitable[Any]]


def queries() -> Mapping[str, Query]:
    """What runs again and again beside the builds, by name."""
    now, today = datetime.now(UTC), datetime.now(UTC).date()
    long_ago = now - timedelta(days=3)
    return {
        "reaper: a slice of the started builds": lambda tx: reaper.started_builds(tx, digits="0"),
        "reaper: open previews of a slice": lambda tx: reaper.open_previews(tx, [], "0"),
        "reaper: lost builds": reaper.count_lost,
        "reaper: builds to cancel": lambda tx: reaper.builds_to_cancel(tx, now, 100),
        "reaper: users with free slots": reaper.users_with_free_slots,
        "reaper: unstarted builds": lambda tx: builds.unstarted_builds(tx, 100, before=now),
        "reaper: missed notifications": lambda tx: steering.missed_notifications(tx, now),
        "reaper: builds closed lately": lambda tx: reaper.builds_closed_between(tx, now - timedelta(hours=1), now, 200),
        "reaper: objects that are due": lambda tx: tombstones.lock_due(tx, 200, now),
        "reaper: erasures to start": lambda tx: erasures.erasures_to_start(tx, now, now),
        "reaper: running bulk acts": bulk_runs.running_runs,
        "reaper: next for a permit": lambda tx: permits.next_in_queue(tx, 100),
        "reaper: lost permits": lambda tx: permits.return_lost_permits(tx, [], timedelta(minutes=2)),
        "retention: builds to archive": lambda tx: build_archives.builds_to_archive(tx, None, long_ago, 200),
        "retention: the same from its cursor": lambda tx: build_archives.builds_to_archive(
            tx, now - timedelta(days=34), long_ago, 200
        ),
        "outbox: deliveries to start": lambda tx: webhooks.deliveries_to_start(tx, 100),
        "outbox: old deliveries": lambda tx: webhooks.delete_old_deliveries(tx, 1000),
        "prober: builds that wait": lambda tx: dependencies.builds_waiting_for(tx, Dependency.MODEL, 100),
        "prober: how many wait": dependencies.count_waiting_builds,
        "metrics: the fleet": lambda tx: fleet_figures.read_fleet_figures(tx, today),
        "metrics: drift": lambda tx: drift.find_drift(tx, today - timedelta(days=1)),
        "operators: groups": lambda tx: fleet_builds.count_groups(tx, now - timedelta(days=1)),
        "operators: doubtful builds": lambda tx: fleet_builds.doubtful_builds(tx, now, 100),
        "operators: open builds": lambda tx: fleet_builds.list_fleet(tx, FleetFilter(open=True), NEWEST, limit=100),
        "operators: closed builds": lambda tx: fleet_builds.list_fleet(tx, FleetFilter(open=False), NEWEST, limit=100),
        "operators: turns of a minute": operator_figures.turns_of_last_minute,
        "operators: spent by plan": lambda tx: operator_figures.spent_by_plan(tx, today),
        "operators: the audit": lambda tx: audit.list_entries(tx, audit.AuditFilter(), 100),
    }


@dataclass(frozen=True)
class Reading:
    """What one query has read. `scanned`: rows of large tables that were read whole, by table."""

    name: str
    milliseconds: float
    rows: int
    scanned: Mapping[str, int]


_READ = text(
    "select relname, seq_tup_read, idx_tup_fetch from pg_stat_xact_user_tables where seq_tup_read + idx_tup_fetch > 0"
)


async def _read(tx: Transaction) -> tuple[dict[str, int], dict[str, int]]:
    """Rows that this connection has read by reading a whole table, and by an index, by table."""
    rows = [(str(table), int(whole), int(found)) for table, whole, found in await tx.session.execute(_READ)]
    return {table: whole for table, whole, _ in rows}, {table: found for table, _, found in rows}


async def fill(sessions: Sessions, open_builds: int, closed: int, turns: int) -> None:
    """Insert open builds of so many turns, and so many closed ones for each of them, nine tenths of these archived."""
    await fill_fleet(sessions, open_builds, turns=turns, closed=closed)
    for statement in _ENDED:
        async with transaction(sessions) as tx:
            values = {"archived": open_builds * closed * 9 // 10} if ":archived" in statement else {}
            await tx.session.execute(text(statement), values)


async def measure(sessions: Sessions, *, large: int = LARGE, by_index: bool = False) -> list[Reading]:
    """Run each query twice, and look at the second time; what it changes is taken back.

    Args:
        sessions: of the database.
        large: `scanned` has tables of which this many rows were read by reading them whole.
        by_index: plan as in a large database: by indexes, and without reading a table whole to join it.
    """
    readings = []
    for name, query in queries().items():
        for is_second in (False, True):
            async with transaction(sessions) as tx:
                await tx.session.execute(text("set local max_parallel_workers_per_gather = 0"))
                if by_index:
                    for plan in ("seqscan", "hashjoin", "mergejoin"):
                        await tx.session.execute(text(f"set local enable_{plan} = off"))
                before = await _read(tx)
                began = time.perf_counter()
                await query(tx)
                taken = (time.perf_counter() - began) * 1000
                read = await _read(tx)
                await tx.session.rollback()
            if is_second:
                whole, found = ({table: n - before[at].get(table, 0) for table, n in read[at].items()} for at in (0, 1))
                scanned = {table: count for table, count in whole.items() if count >= large}
                readings.append(Reading(name, taken, sum(whole.values()) + sum(found.values()), scanned))
    return readings


async def _run(open_builds: int, closed: int, turns: int) -> None:
    async with LocalStack(parts=("postgres", "temporal", "s3"), temporal_ui=False) as stack:
        url = await new_database(stack)
        engine = make_engine(url, limited=False)  # it takes minutes to fill
        sessions = make_sessions(engine)
        await fill(sessions, open_builds, closed, turns)
        readings = await measure(sessions)
        await engine.dispose()
    print(machine())
    print(f"{open_builds:,} open builds of {turns} turns, {open_builds * closed:,} closed ones, nine tenths archived")
    print(f"{'':<40} {'ms':>8} {'rows read':>10}  whole tables")
    for each in readings:
        whole = ", ".join(f"{table} ({rows:,})" for table, rows in each.scanned.items())
        print(f"{each.name:<40} {each.milliseconds:>8.1f} {each.rows:>10,}  {whole}")


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--builds", type=int, default=20_000)
    parser.add_argument("--closed", type=int, default=10, help="closed builds of each project")
    parser.add_argument("--turns", type=int, default=3, help="of each open build")
    options = parser.parse_args()
    asyncio.run(_run(options.builds, options.closed, options.turns))


if __name__ == "__main__":
    main()
