"""The deployment's row: which Temporal namespace the database is bound to, and its generation."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from db.models import Build, Deployment, ReaperStep
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


async def read_deployment_id(tx: Transaction) -> uuid.UUID | None:
    """Return the deployment's id, which it keeps for good; None if the database is not bound."""
    return await tx.session.scalar(select(Deployment.id))


async def bind(tx: Transaction, namespace: Namespace) -> None:
    """Bind the database to a namespace, in place of any other. The deployment keeps its id and its generation."""
    values = {
        "namespace": namespace.name,
        "temporal_address": namespace.address,
        "namespace_id": namespace.id,
        "bound_at": func.now(),
    }
    await tx.session.execute(
        insert(Deployment)
        .values(id=uuid.uuid4(), **values)
        .on_conflict_do_update(index_elements=["singleton"], set_=values)
    )
    # Where the reaper was says nothing about another namespace.
    await tx.session.execute(delete(ReaperStep))


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
