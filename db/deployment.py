"""The deployment's row: which Temporal namespace the database is bound to, its generation, and the reaper's cursors."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from db.models import Build, Deployment, ReaperCursor
from db.session import Sessions
from db.transaction import Transaction
from domain.deployment import Binding, Namespace

_LOCK = 0x0C0F0DE6
"""Key of the advisory lock under which the database is bound."""


def database_address(sessions: Sessions) -> str:
    """Return host:port/name of the database, without user and password."""
    url = sessions.statements.url
    return f"{url.host or 'localhost'}:{url.port or 5432}/{url.database}"


async def lock_binding(tx: Transaction) -> None:
    """Let one process at a time bind the database, until the transaction ends."""
    await tx.session.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _LOCK})


async def read_binding(tx: Transaction) -> Binding | None:
    """Return the namespace that the database is bound to, if it is bound.

    Raises:
        ProgrammingError: the database has not been migrated.
    """
    row = await tx.session.scalar(select(Deployment))
    if row is None:
        return None
    return Binding(Namespace(row.namespace, row.temporal_address, row.namespace_id), row.bound_at)


async def bind(tx: Transaction, namespace: Namespace) -> None:
    """Bind the database to a namespace, in place of any other. The deployment keeps its id and its generation."""
    values = {
        "namespace": namespace.name,
        "temporal_address": namespace.address,
        "namespace_id": namespace.id,
        "bound_at": func.now(),
        "alert": None,
        "alert_at": None,
    }
    await tx.session.execute(
        insert(Deployment)
        .values(id=uuid.uuid4(), **values)
        .on_conflict_do_update(index_elements=["singleton"], set_=values)
    )
    # Where the reaper was says nothing about another namespace.
    await tx.session.execute(text("delete from reaper_cursors"))


async def has_builds(tx: Transaction) -> bool:
    """Whether there is any build, open or closed."""
    return await tx.session.scalar(select(Build.id).limit(1)) is not None


async def count_started(tx: Transaction) -> int:
    """Count the open builds whose workflow was started."""
    query = select(func.count()).select_from(Build).where(Build.closed_at.is_(None), Build.started_at.is_not(None))
    return int(await tx.session.scalar(query) or 0)


async def newest_started(tx: Transaction, limit: int) -> Sequence[uuid.UUID]:
    """Return up to `limit` open builds whose workflow was started, the newest first."""
    query = (
        select(Build.id)
        .where(Build.closed_at.is_(None), Build.started_at.is_not(None))
        .order_by(Build.created_at.desc())
        .limit(limit)
    )
    return (await tx.session.scalars(query)).all()


# ---- generation


@dataclass(frozen=True)
class Generation:
    """A number that the database counts up and the object store has a copy of.

    The copy is written after the number is committed, so it is never higher, unless the database was put back to an
    earlier state.
    """

    deployment_id: uuid.UUID
    number: int


async def read_generation(tx: Transaction) -> Generation | None:
    """Return the generation; None if the database is not bound."""
    row = await tx.session.scalar(select(Deployment))
    return None if row is None else Generation(row.id, row.generation)


async def advance_generation(tx: Transaction, at_least: int = 0) -> Generation | None:
    """Count the generation up, to `at_least` or more, and return it; None if the database is not bound."""
    row = (
        await tx.session.execute(
            update(Deployment)
            .values(generation=func.greatest(Deployment.generation + 1, at_least))
            .returning(Deployment.id, Deployment.generation)
        )
    ).one_or_none()
    return None if row is None else Generation(row.id, row.generation)


# ---- alerts and cursors


async def record_alert(tx: Transaction, alert: str | None) -> None:
    """Record what an operator must look at, for `cofounder doctor`; None: nothing."""
    await tx.session.execute(
        update(Deployment)
        .where(Deployment.alert.is_distinct_from(alert))
        .values(alert=alert, alert_at=None if alert is None else func.now())
    )


async def read_alert(tx: Transaction) -> str | None:
    """Return what an operator must look at."""
    return await tx.session.scalar(select(Deployment.alert))


async def read_cursor(tx: Transaction, step: str) -> datetime | None:
    """Return how far a step of the reaper has come; None if it has not begun."""
    return await tx.session.scalar(select(ReaperCursor.at).where(ReaperCursor.step == step))


async def move_cursor(tx: Transaction, step: str, at: datetime) -> None:
    """Note how far a step of the reaper has come. It never goes back, as two of them may run."""
    await tx.session.execute(
        insert(ReaperCursor)
        .values(step=step, at=at)
        .on_conflict_do_update(index_elements=["step"], set_={"at": func.greatest(ReaperCursor.at, at)})
    )
