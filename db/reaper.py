"""What the reaper reads and notes: its steps, the builds and previews that it judges, and who waits for a nudge.

Conditions of partial indexes are literals: PostgreSQL does not match them with parameters.
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Text, and_, cast, func, literal_column, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import InstrumentedAttribute

from db.models import Build, Preview, ReaperStep
from db.transaction import Transaction

_OPEN_PREVIEW: ColumnElement[bool] = literal_column("(previews.state = 'open' or previews.state = 'opening')")
"""In parentheses: SQLAlchemy adds none to a literal that it combines with another condition."""

# ---- steps

_RECOVERY = "operator's recovery"


async def read_cursor(tx: Transaction, step: str) -> datetime | None:
    """Return how far a step has come; None if it has not begun."""
    return await tx.session.scalar(select(ReaperStep.at).where(ReaperStep.step == step))


async def move_cursor(tx: Transaction, step: str, at: datetime) -> None:
    """Note how far a step has come. It never goes back, as two reapers may run."""
    await tx.session.execute(
        insert(ReaperStep)
        .values(step=step, at=at)
        .on_conflict_do_update(index_elements=["step"], set_={"at": func.greatest(ReaperStep.at, at)})
    )


async def note_recovery(tx: Transaction) -> None:
    """Note that an operator's recovery has started every workflow that is needed and was not found. The note holds for
    the namespace that the database is bound to now."""
    await tx.session.execute(
        insert(ReaperStep)
        .values(step=_RECOVERY, at=func.now())
        .on_conflict_do_update(index_elements=["step"], set_={"at": func.now()})
    )


async def ended_before_recovery(tx: Transaction, build_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Return which of these builds had ended before an operator's last recovery in this namespace.

    A workflow of theirs that is not found is lost: one that is needed later is found before its rows are written.
    """
    query = select(Build.id).join(ReaperStep, ReaperStep.step == _RECOVERY)
    return set(await tx.session.scalars(query.where(Build.id.in_(build_ids), Build.closed_at < ReaperStep.at)))


async def record_alert(tx: Transaction, step: str, alert: str | None) -> None:
    """Note what an operator must look at, or with None that there is nothing; `cofounder doctor` shows it."""
    if alert is None:
        await tx.session.execute(
            update(ReaperStep)
            .where(ReaperStep.step == step, ReaperStep.alert.is_not(None))
            .values(alert=None, alert_at=None)
        )
        return
    values = {"alert": alert, "alert_at": func.now()}
    await tx.session.execute(
        insert(ReaperStep)
        .values(step=step, **values)
        .on_conflict_do_update(index_elements=["step"], set_=values, where=ReaperStep.alert.is_distinct_from(alert))
    )


async def find_alert(tx: Transaction, step: str) -> str | None:
    """Return what an operator must look at because of a step, if there is something."""
    return await tx.session.scalar(select(ReaperStep.alert).where(ReaperStep.step == step))


async def read_alerts(tx: Transaction) -> Sequence[str]:
    """Return what an operator must look at, sorted by step."""
    alerts = await tx.session.scalars(
        select(ReaperStep.alert).where(ReaperStep.alert.is_not(None)).order_by(ReaperStep.step)
    )
    return [alert for alert in alerts if alert is not None]


# ---- builds and previews


@dataclass(frozen=True)
class StartedBuild:
    """An open build whose workflow was started, and whether it is marked as lost."""

    id: uuid.UUID
    started_at: datetime
    is_marked: bool


async def started_builds(
    tx: Transaction, *, among: Collection[uuid.UUID] | None = None, digits: str | None = None
) -> list[StartedBuild]:
    """Return the open builds whose workflow was started: all, those `among` these ids, or those whose id begins with
    one of the `digits`."""
    query = select(Build.id, Build.started_at, Build.lost_at).where(
        Build.closed_at.is_(None), Build.started_at.is_not(None)
    )
    if among is not None:
        query = query.where(Build.id.in_(among))
    if digits is not None:
        query = query.where(_first_digit(Build.id).in_(list(digits)))
    rows = await tx.session.execute(query)
    return [
        StartedBuild(build_id, started_at, lost_at is not None)
        for build_id, started_at, lost_at in rows
        if started_at is not None
    ]


async def mark_lost(tx: Transaction, build_ids: Collection[uuid.UUID]) -> None:
    """Mark builds whose workflows are not found. Nothing else changes."""
    await tx.session.execute(
        update(Build).where(Build.id.in_(build_ids), Build.lost_at.is_(None)).values(lost_at=func.now())
    )


async def unmark_lost(tx: Transaction, build_ids: Collection[uuid.UUID]) -> None:
    """Take the mark back: the workflows are there."""
    await tx.session.execute(update(Build).where(Build.id.in_(build_ids)).values(lost_at=None))


async def count_lost(tx: Transaction) -> int:
    """Count the open builds that are marked as lost."""
    query = select(func.count()).select_from(Build).where(Build.closed_at.is_(None), Build.lost_at.is_not(None))
    return int(await tx.session.scalar(query) or 0)


async def open_previews(tx: Transaction, among: Collection[uuid.UUID], digits: str) -> Sequence[Preview]:
    """Return the previews that are opening or open, of the builds `among` and of those whose id begins with a digit."""
    chosen = or_(Preview.build_id.in_(among), _first_digit(Preview.build_id).in_(list(digits)))
    return (await tx.session.scalars(select(Preview).where(_OPEN_PREVIEW, chosen))).all()


def _first_digit(column: ColumnElement[uuid.UUID] | InstrumentedAttribute[uuid.UUID]) -> ColumnElement[str]:
    return func.left(cast(column, Text), 1)


@dataclass(frozen=True)
class SandboxOwner:
    """A build as far as it decides about its sandboxes."""

    is_open: bool
    sandbox_id: str | None
    is_previewed: bool


async def sandbox_owners(tx: Transaction, build_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, SandboxOwner]:
    """Return the builds that are in this database, by id."""
    rows = await tx.session.execute(
        select(Build.id, Build.closed_at, Build.sandbox_id, Preview.build_id)
        .outerjoin(Preview, and_(Preview.build_id == Build.id, _OPEN_PREVIEW))
        .where(Build.id.in_(build_ids))
    )
    return {
        build_id: SandboxOwner(closed_at is None, sandbox_id, previewed is not None)
        for build_id, closed_at, sandbox_id, previewed in rows
    }


async def builds_closed_between(
    tx: Transaction, after: datetime, until: datetime, limit: int
) -> list[tuple[uuid.UUID, datetime]]:
    """Return up to `limit` builds that were closed after `after` and not after `until`, the first one first."""
    rows = await tx.session.execute(
        select(Build.id, Build.closed_at)
        .where(Build.closed_at > after, Build.closed_at <= until)
        .order_by(Build.closed_at)
        .limit(limit)
    )
    return [(build_id, closed_at) for build_id, closed_at in rows if closed_at is not None]


# ---- what may not have been received


async def builds_to_cancel(tx: Transaction, before: datetime, limit: int) -> Sequence[uuid.UUID]:
    """Return up to `limit` started builds that are open although they were to be cancelled before `before`.

    In a random order, so that none of them waits for the others when there are more.
    """
    query = (
        select(Build.id)
        .where(literal_column("builds.cancel_requested_at is not null and builds.closed_at is null"))
        .where(Build.cancel_requested_at < before, Build.started_at.is_not(None))
        .order_by(func.random())
        .limit(limit)
    )
    return (await tx.session.scalars(query)).all()


_USERS_WITH_FREE_SLOTS = text("""
    select waiting.user_id from (
        select user_id, count(*) filter (where admitted_at is not null) as running
        from builds where closed_at is null
        group by user_id having count(*) filter (where admitted_at is null and started_at is not null) > 0
    ) waiting
    join users on users.id = waiting.user_id
    join plan_tiers on plan_tiers.name = users.plan
    where plan_tiers.concurrent_builds > waiting.running
""")


async def users_with_free_slots(tx: Transaction) -> list[str]:
    """Return the users who have a free slot and a started build without one."""
    return [user_id for (user_id,) in await tx.execute(_USERS_WITH_FREE_SLOTS, {})]
