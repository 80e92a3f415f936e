"""Reads how the whole fleet is, for its metrics: what is open and waits, what is spent, who runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from sqlalchemy import Date, bindparam, text

from db.formats import workers_by_role
from db.transaction import Transaction


@dataclass(frozen=True)
class BuildGroup:
    """Open builds that are in the same state."""

    status: str
    waiting_for: str
    dependency: str
    count: int
    oldest_seconds: float
    """Since the first of them has had its status."""


@dataclass(frozen=True)
class FleetFigures:
    """The fleet at one moment. Times are ages in seconds, amounts are in µ$."""

    builds: Sequence[BuildGroup]
    silent_seconds: float
    lost: int
    slots_queued: int
    permits_held: int
    permits_queued: int
    permits_oldest_seconds: float
    previews: int
    spent: int
    reserved: int
    spend_limit: int | None
    deliveries_queued: int
    deliveries_overdue_seconds: float
    dependencies: Mapping[str, str] = field(default_factory=dict)
    """State by name, of those that have ever been down."""
    reaper_alerts: Mapping[str, bool] = field(default_factory=dict)
    processes: Sequence[tuple[str, str, int]] = ()
    """Role, version and number of the programs that run."""
    workers_by_role: Mapping[str, int] = field(default_factory=dict)
    """How many workers take the work of each role."""


_BUILDS = text(
    """
    select status, coalesce(waiting_for, ''), coalesce(dependency, ''), count(*),
        extract(epoch from clock_timestamp() - min(status_at))::float8
    from builds where closed_at is null group by 1, 2, 3
    """
)

_SILENT = text(
    """
    select coalesce(extract(epoch from clock_timestamp() - min(events.created_at)), 0)::float8
    from builds join events on events.build_id = builds.id and events.id = builds.last_event_id
    where builds.closed_at is null and builds.status in ('starting', 'scaffold', 'code', 'checks')
    """
)

_COUNTS = text(
    """
    select
        (select count(*) from builds where closed_at is null and lost_at is not null),
        (select count(*) from builds where closed_at is null and started_at is not null and admitted_at is null),
        (select count(*) from permits where held_since is not null)
            + (select count(*) from push_permits where expires_at > clock_timestamp()),
        (select count(*) from permits where held_since is null),
        (select coalesce(extract(epoch from clock_timestamp() - min(queued_at)), 0)::float8
            from permits where held_since is null),
        (select count(*) from previews where state = 'open' or state = 'opening'),
        (select coalesce(sum(spent), 0) from fleet_days where day = :day),
        (select coalesce(sum(reserved), 0) from fleet_days where day = :day),
        (select value from limits where name = 'fleet_day'),
        (select count(*) from webhook_deliveries where state in ('queued', 'sending')),
        (select coalesce(greatest(0, extract(epoch from clock_timestamp() - min(due_at))), 0)::float8
            from webhook_deliveries where state in ('queued', 'sending'))
    """
).bindparams(bindparam("day", type_=Date()))

_DEPENDENCIES = text("select name, state from dependencies")

_ALERTS = text("select step, alert is not null from reaper_steps")

_PROCESSES = text(
    """
    select role, version, count(*) from processes where seen_at > clock_timestamp() - interval '2 minutes' group by 1, 2
    """
)


async def read_fleet_figures(tx: Transaction, day: date) -> FleetFigures:
    """Read them. All open builds are looked at, and nothing that has ended."""
    groups = [BuildGroup(*row) for row in await tx.execute(_BUILDS, {})]
    silent = (await tx.execute(_SILENT, {})).scalar()
    lost, queued, held, waiting, oldest, previews, spent, reserved, limit, deliveries, overdue = (
        await tx.execute(_COUNTS, {"day": day})
    ).one()
    return FleetFigures(
        builds=groups,
        silent_seconds=silent,
        lost=lost,
        slots_queued=queued,
        permits_held=held,
        permits_queued=waiting,
        permits_oldest_seconds=oldest,
        previews=previews,
        spent=int(spent),
        reserved=int(reserved),
        spend_limit=limit,
        deliveries_queued=deliveries,
        deliveries_overdue_seconds=overdue,
        dependencies={name: state for name, state in await tx.execute(_DEPENDENCIES, {})},
        reaper_alerts={step: alert for step, alert in await tx.execute(_ALERTS, {})},
        processes=[tuple(row) for row in await tx.execute(_PROCESSES, {})],
        workers_by_role=await workers_by_role(tx),
    )
