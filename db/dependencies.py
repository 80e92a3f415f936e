"""What is known of the dependencies that builds wait for. A dependency without a row has never been away.

Times are those of the processes' clocks and not of the workflows', which run ahead in tests.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, text

from db.models import Build, DependencyState
from db.transaction import Transaction
from domain.outage import probe_wait
from domain.status import Dependency, Status

_REPORT = text(
    """
    insert into dependencies (name, state, since, failures, next_probe_at, detail)
    values (:name, 'down', :now, 0, :first, :detail)
    on conflict (name) do update set
        state = 'down', since = excluded.since, detail = excluded.detail,
        failures = case when dependencies.state = 'half_open' then dependencies.failures + 1 else 0 end,
        next_probe_at = case when dependencies.state = 'half_open' then :again else :first end
    where dependencies.state <> 'down'
    """
)


async def find_dependency(tx: Transaction, name: Dependency) -> DependencyState | None:
    """Return the dependency's row, if it has one."""
    return await tx.session.get(DependencyState, name)


async def report_down(tx: Transaction, name: Dependency, detail: str, now: datetime) -> None:
    """Mark the dependency as down, unless it is. After a relapse it is probed later each time."""
    row = await find_dependency(tx, name)
    failures = 0 if row is None else row.failures + 1
    parameters = {
        "name": name,
        "now": now,
        "first": now + probe_wait(0),
        "again": now + probe_wait(failures),
        "detail": detail,
    }
    await tx.execute(_REPORT, parameters)


async def dependencies_not_up(tx: Transaction) -> list[DependencyState]:
    """Return the rows of the dependencies that are down or half open, by name."""
    rows = await tx.session.scalars(
        select(DependencyState).where(DependencyState.state != "up").order_by(DependencyState.name)
    )
    return list(rows)


async def record_probe(tx: Transaction, name: Dependency, error: str | None, now: datetime) -> None:
    """Write down how a probe has ended: `error` is None if the dependency has answered.

    One that has answered is half open; one that has not is probed later each time.
    """
    row = await tx.session.get(DependencyState, name, with_for_update=True, populate_existing=True)
    if row is None or row.state == "up":
        return
    if error is None:
        if row.state == "down":
            row.state, row.since, row.next_probe_at = "half_open", now, None
    else:
        row.since = row.since if row.state == "down" else now
        row.state, row.failures, row.detail = "down", row.failures + 1, error
        row.next_probe_at = now + probe_wait(row.failures)
    await tx.session.flush()


async def mark_up(tx: Transaction, name: Dependency, now: datetime) -> None:
    """Mark a half-open dependency as up: the builds that have waited for it have gone on."""
    row = await tx.session.get(DependencyState, name, with_for_update=True, populate_existing=True)
    if row is not None and row.state == "half_open":
        row.state, row.since, row.failures, row.next_probe_at = "up", now, 0, None
        await tx.session.flush()


async def builds_waiting_for(tx: Transaction, name: Dependency, limit: int) -> Sequence[uuid.UUID]:
    """Return up to `limit` builds that wait for the dependency, those that have waited longest first."""
    rows = await tx.session.scalars(
        select(Build.id)
        .where(Build.closed_at.is_(None), Build.status == Status.WAITING, Build.dependency == name)
        .order_by(Build.status_at, Build.id)
        .limit(limit)
    )
    return rows.all()


@dataclass(frozen=True)
class WaitingBuilds:
    """How many builds wait for a dependency."""

    dependency: str
    builds: int


async def count_waiting_builds(tx: Transaction) -> list[WaitingBuilds]:
    """Return how many builds wait, by dependency."""
    rows = await tx.session.execute(
        select(Build.dependency, func.count())
        .where(Build.closed_at.is_(None), Build.status == Status.WAITING)
        .group_by(Build.dependency)
        .order_by(Build.dependency)
    )
    return [WaitingBuilds(str(name), int(count)) for name, count in rows]
