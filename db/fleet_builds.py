"""The builds of all users, for operators: which match a filter, in pages, and how many there are of each kind.

Transactions have to see every row. Conditions of partial indexes are literals; see `db/reaper.py`.
"""

import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Integer,
    Interval,
    Text,
    and_,
    bindparam,
    cast,
    func,
    literal,
    select,
    text,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY, UUID

from db.builds import LAST_TURN
from db.models import Build, Event, LedgerEntry, Project, User
from db.transaction import Transaction
from domain.fleet_filter import FleetFilter, FleetOrder, SortKey
from domain.status import Status, WaitingFor
from domain.stuck import LATE, SUSPICIOUS, BuildFacts

GOAL_CHARACTERS = 200
"""The list shows this much of a goal."""

WORKING = (Status.STARTING, Status.SCAFFOLD, Status.CODE, Status.CHECKS)
"""A build in one of these makes progress by itself."""

_NEVER = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class FleetBuild:
    """A build as the list of the fleet shows it. `spent` is in µ$."""

    id: uuid.UUID
    user_id: str
    plan: str
    project_id: uuid.UUID
    project_name: str
    goal: str
    status: str
    waiting_for: str | None
    dependency: str | None
    reason: str | None
    turn: int
    spent: int
    model: str | None
    since: datetime
    wakes_at: datetime | None
    last_event_at: datetime | None
    created_at: datetime
    closed_at: datetime | None
    is_lost: bool


@dataclass(frozen=True)
class FleetPosition:
    """The last row of a page: what it was sorted by, as whole number, and its id."""

    value: int
    id: uuid.UUID


@dataclass(frozen=True)
class FleetPage:
    """Some of the builds that match, and how many do."""

    builds: Sequence[FleetBuild]
    total: int
    next: FleetPosition | None


@dataclass(frozen=True)
class BuildGroup:
    """How many builds have the same status, wait for the same and are run by the same version."""

    status: str
    waiting_for: str | None
    dependency: str | None
    version: str | None
    count: int
    oldest_since: datetime


_SPENT = (
    select(func.coalesce(func.sum(LedgerEntry.cost), 0))
    .where(LedgerEntry.build_id == Build.id)
    .correlate(Build)
    .scalar_subquery()
)
_LAST_EVENT_AT = (
    select(Event.created_at)
    .where(Event.build_id == Build.id, Event.id == Build.last_event_id)
    .correlate(Build)
    .scalar_subquery()
)
_KEYS: dict[SortKey, ColumnElement[Any]] = {
    SortKey.CREATED_AT: Build.created_at.expression,
    SortKey.SINCE: Build.status_at.expression,
    SortKey.SPENT: _SPENT,
    SortKey.TURN: LAST_TURN,
    SortKey.WAKES_AT: func.coalesce(Build.wakes_at, _NEVER),
    SortKey.LAST_EVENT_AT: func.coalesce(_LAST_EVENT_AT, Build.created_at),
}
_NUMBERS = frozenset({SortKey.SPENT, SortKey.TURN})


_COLUMNS = (
    Build.id,
    Build.user_id,
    User.plan,
    Build.project_id,
    Project.name,
    func.left(Build.goal, GOAL_CHARACTERS),
    Build.status,
    Build.waiting_for,
    Build.dependency,
    Build.reason,
    LAST_TURN,
    _SPENT,
    Build.model,
    Build.status_at,
    Build.wakes_at,
    _LAST_EVENT_AT,
    Build.created_at,
    Build.closed_at,
    Build.lost_at.is_not(None),
)
"""The columns of a `FleetBuild`, in its order."""


def matches(only: FleetFilter, of_versions: Collection[uuid.UUID] | None = None) -> ColumnElement[bool]:
    """The condition on `Build` that the filter means.

    Args:
        of_versions: the builds that workers of the filter's versions run; only Temporal knows them.
    """
    conditions: list[ColumnElement[bool]] = [true()]
    if only.id:
        conditions.append(Build.id.in_(only.id))
    for column, values in (
        (Build.status, only.status),
        (Build.waiting_for, only.waiting_for),
        (Build.dependency, only.dependency),
        (Build.model, only.model),
        (Build.user_id, only.user),
    ):
        if values:
            conditions.append(column.in_([str(value) for value in values]))
    if only.plan:
        conditions.append(Build.user_id.in_(select(User.id).where(User.plan.in_(only.plan))))
    if only.version:
        # One parameter, however many there are: a statement has room for 32,767.
        conditions.append(Build.id == func.any(literal(list(of_versions or ()), ARRAY(UUID()))))
    if only.older_than_seconds is not None:
        conditions.append(Build.status_at <= func.now() - timedelta(seconds=only.older_than_seconds))
    if only.closed_since is not None:
        conditions.append(Build.closed_at >= only.closed_since)
    if only.implies_open:  # so that partial indexes of open builds serve
        conditions.append(Build.closed_at.is_(None))
    if only.open is not None:
        conditions.append(Build.closed_at.is_(None) if only.open else Build.closed_at.is_not(None))
    return and_(*conditions)


async def list_fleet(
    tx: Transaction,
    only: FleetFilter,
    order: FleetOrder,
    *,
    after: FleetPosition | None = None,
    limit: int,
    of_versions: Collection[uuid.UUID] | None = None,
) -> FleetPage:
    """Read a page of the builds that match, and count them all, in one statement. See `matches`."""
    condition = matches(only, of_versions)
    key = _KEYS[order.key]
    page = select(Build.id.label("id"), key.label("key")).where(condition)
    if after is not None:
        value = after.value if order.key in _NUMBERS else _time(after.value)
        here = tuple_(literal(value) if order.key in _NUMBERS else cast(value, DateTime(True)), literal(after.id))
        row = tuple_(key, Build.id)
        page = page.where(row < here if order.is_descending else row > here)
    page = page.order_by(*_ordered(order, key, Build.id.expression)).limit(limit + 1)
    page_rows = page.subquery("page")
    total = select(func.count().label("total")).select_from(Build).where(condition).subquery("total")
    query = (
        select(total.c.total, page_rows.c.key, *_COLUMNS)
        .select_from(total)
        .outerjoin(page_rows, true())
        .outerjoin(Build, Build.id == page_rows.c.id)
        .outerjoin(User, User.id == Build.user_id)
        .outerjoin(Project, Project.id == Build.project_id)
        .order_by(*_ordered(order, page_rows.c.key, page_rows.c.id))
    )
    rows = (await tx.session.execute(query)).all()
    found = [row for row in rows if row[2] is not None]
    last = found[limit - 1] if len(found) > limit else None
    return FleetPage(
        builds=[FleetBuild(*row[2:]) for row in found[:limit]],
        total=int(rows[0][0]),
        next=None if last is None else FleetPosition(_number(last[1]), last[2]),
    )


async def find_fleet_builds(tx: Transaction, build_ids: Collection[uuid.UUID]) -> list[FleetBuild]:
    """Return those of the builds that there are, the newest first."""
    rows = await tx.session.execute(
        select(*_COLUMNS)
        .select_from(Build)
        .join(User, User.id == Build.user_id)
        .join(Project, Project.id == Build.project_id)
        .where(Build.id.in_(build_ids))
        .order_by(Build.created_at.desc(), Build.id.desc())
    )
    return [FleetBuild(*row) for row in rows]


_DOUBTFUL = text(
    """
    select builds.id, builds.status, builds.waiting_for, builds.reason, builds.status_at, events.created_at,
        builds.wakes_at, builds.created_at, builds.started_at is not null, builds.lost_at is not null,
        builds.cancel_requested_at
    from builds left join events on events.build_id = builds.id and events.id = builds.last_event_id
    where builds.closed_at is null and (cast(:only as uuid) is null or builds.id = :only) and (
        builds.id = any(:also)
        or builds.lost_at is not null
        or builds.waiting_for = 'operator'
        or builds.status in ('starting', 'scaffold', 'code', 'checks')
            and greatest(events.created_at, builds.status_at) < :now - cast(:suspicious as interval)
        or builds.wakes_at < :now - cast(:late as interval)
        or builds.started_at is null and builds.created_at < :now - cast(:late as interval)
        or builds.cancel_requested_at < :now - cast(:late as interval)
    )
    order by greatest(events.created_at, builds.status_at), builds.id limit :limit
    """
).bindparams(
    bindparam("also", type_=ARRAY(UUID(as_uuid=True))),
    bindparam("now", type_=DateTime(True)),
    bindparam("suspicious", type_=Interval()),
    bindparam("late", type_=Interval()),
    bindparam("limit", type_=Integer()),
    bindparam("only", type_=UUID(as_uuid=True)),
)


async def doubtful_builds(
    tx: Transaction, now: datetime, limit: int, also: Collection[uuid.UUID] = (), only: uuid.UUID | None = None
) -> list[BuildFacts]:
    """Return the open builds that may make no progress, those first of which nothing was heard the longest.

    `also`: builds that belong to them if they are open. `only`: no other build than this one.
    """
    values = {"also": list(also), "now": now, "suspicious": SUSPICIOUS, "late": LATE, "limit": limit, "only": only}
    return [
        BuildFacts(
            build_id=str(build_id),
            works=status in WORKING,
            waits_for_operator=waiting_for == WaitingFor.OPERATOR,
            reason=reason,
            status_at=status_at,
            last_event_at=last_event_at,
            wakes_at=wakes_at,
            created_at=created_at,
            is_started=is_started,
            is_lost=is_lost,
            cancel_requested_at=cancel_requested_at,
        )
        for (
            build_id,
            status,
            waiting_for,
            reason,
            status_at,
            last_event_at,
            wakes_at,
            created_at,
            is_started,
            is_lost,
            cancel_requested_at,
        ) in await tx.execute(_DOUBTFUL, values)
    ]


def _ordered(order: FleetOrder, *columns: ColumnElement[Any]) -> list[ColumnElement[Any]]:
    return [column.desc() if order.is_descending else column.asc() for column in columns]


_GROUPS = text(
    """
    select status, waiting_for, dependency, of_versions.version, count(*), min(status_at)
    from builds left join jsonb_to_recordset(cast(:versions as jsonb)) as of_versions(id uuid, version text)
        on of_versions.id = builds.id
    where builds.closed_at is null or builds.closed_at >= :closed_since
    group by 1, 2, 3, 4 order by 1, 2, 3, 4
    """
).bindparams(bindparam("versions", type_=Text()), bindparam("closed_since", type_=DateTime(True)))


async def count_groups(
    tx: Transaction, closed_since: datetime, versions: Mapping[uuid.UUID, str] | None = None
) -> list[BuildGroup]:
    """Count the open builds, and those that were closed since then, by status, what they wait for, and version.

    Args:
        versions: by which version of the workers builds are run; only Temporal knows that.
    """
    known = [{"id": str(build_id), "version": version} for build_id, version in (versions or {}).items()]
    rows = await tx.execute(_GROUPS, {"versions": json.dumps(known), "closed_since": closed_since})
    return [BuildGroup(*row) for row in rows]


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _number(value: Any) -> int:
    return (value - _EPOCH) // _MICROSECOND if isinstance(value, datetime) else int(value)


def _time(value: int) -> datetime:
    return _EPOCH + value * _MICROSECOND
