"""Restores of a workspace, requested by its founder. A build has at most one pending restore."""

import uuid
from collections.abc import Sequence
from typing import Required, TypedDict

from sqlalchemy import func, select

from db.feed import append_events
from db.models import Restore, Snapshot, ToolCall
from db.transaction import Transaction
from domain.events import BuildEvent, RestoreAskedEvent, RestoreDoneEvent, RestoreFailedEvent


async def find_restore(tx: Transaction, build_id: uuid.UUID, idempotency_key: str) -> Restore | None:
    """Return the restore that a request with this key created."""
    return await tx.session.scalar(
        select(Restore).where(Restore.build_id == build_id, Restore.idempotency_key == idempotency_key)
    )


async def requested_restore(tx: Transaction, build_id: uuid.UUID) -> Restore | None:
    """Return the build's pending restore, if any."""
    return await tx.session.scalar(select(Restore).where(Restore.build_id == build_id, Restore.state == "requested"))


async def commits_of(tx: Transaction, build_id: uuid.UUID) -> set[str]:
    """Return the commits that ended the build's phases, and those of its snapshots."""
    phases = await tx.session.scalars(
        select(ToolCall.commit).where(ToolCall.build_id == build_id, ToolCall.commit.is_not(None))
    )
    snapshots = await tx.session.scalars(
        select(Snapshot.commit).where(Snapshot.build_id == build_id, Snapshot.commit.is_not(None))
    )
    return {commit for commit in [*phases, *snapshots] if commit}


async def snapshot_at(tx: Transaction, build_id: uuid.UUID, commit: str) -> Snapshot | None:
    """Return the build's last stored snapshot whose HEAD is this commit, which may be abbreviated."""
    return await tx.session.scalar(
        select(Snapshot)
        .where(
            Snapshot.build_id == build_id,
            Snapshot.state == "stored",
            Snapshot.commit.startswith(commit, autoescape=True),
        )
        .order_by(Snapshot.number.desc())
        .limit(1)
    )


async def add_restore(
    tx: Transaction,
    build_id: uuid.UUID,
    *,
    snapshot_number: int | None,
    commit: str | None,
    idempotency_key: str | None,
) -> Restore:
    """Request a restore, and append its event to the feed. The caller has locked the build's row."""
    last = await tx.session.scalar(
        select(func.coalesce(func.max(Restore.number), 0)).where(Restore.build_id == build_id)
    )
    restore = Restore(
        build_id=build_id,
        number=int(last or 0) + 1,
        snapshot_number=snapshot_number,
        commit=commit,
        idempotency_key=idempotency_key,
    )
    tx.session.add(restore)
    await tx.session.flush()
    await tx.session.refresh(restore)
    await append_events(tx, build_id, [RestoreAskedEvent(**_target_fields(restore))])
    return restore


async def end_restore(
    tx: Transaction,
    build_id: uuid.UUID,
    number: int,
    *,
    error: str | None = None,
    kept_as: int | None = None,
    stored_as: int | None = None,
) -> None:
    """Record the outcome of a restore, and append its event to the feed. Does nothing if it has an outcome already."""
    restore = await tx.session.get_one(Restore, (build_id, number), with_for_update=True)
    if restore.state != "requested":
        return
    restore.state, restore.ended_at = ("failed" if error else "done"), func.now()
    restore.error, restore.kept_as, restore.stored_as = error, kept_as, stored_as
    event: BuildEvent = RestoreFailedEvent(number=number, error=error)
    if error is None:
        event = RestoreDoneEvent(**_target_fields(restore), kept_as=kept_as, stored_as=stored_as)
    await tx.session.flush()
    await append_events(tx, build_id, [event])


async def unreported_restores(tx: Transaction, build_id: uuid.UUID) -> Sequence[tuple[Restore, str | None]]:
    """Return completed restores that the agent does not know of yet, each with the HEAD that it left."""
    rows = await tx.session.execute(
        select(Restore, Snapshot.commit)
        .outerjoin(Snapshot, (Snapshot.build_id == Restore.build_id) & (Snapshot.number == Restore.stored_as))
        .where(Restore.build_id == build_id, Restore.state == "done", Restore.turn.is_(None))
        .order_by(Restore.number)
    )
    return [(restore, commit) for restore, commit in rows]


async def mark_reported(tx: Transaction, restores: Sequence[tuple[Restore, str | None]], turn: int) -> None:
    """Record that this turn's user message, which this transaction stores, tells the agent of these restores."""
    for restore, _ in restores:
        restore.turn = turn
    await tx.session.flush()


def describe_target(restore: Restore) -> str:
    """Describe in words what the workspace is restored to."""
    return f"commit {restore.commit}" if restore.commit else f"snapshot {restore.snapshot_number}"


async def load_restore(tx: Transaction, build_id: uuid.UUID, number: int) -> Restore:
    """Return the build's restore with this number.

    Raises:
        NoResultFound: it does not exist.
    """
    return await tx.session.get_one(Restore, (build_id, number))


class _TargetFields(TypedDict, total=False):
    """The fields of a `RestoreTarget`."""

    number: Required[int]
    snapshot: int | None
    commit: str


def _target_fields(restore: Restore) -> _TargetFields:
    if restore.commit:
        return {"number": restore.number, "commit": restore.commit}
    return {"number": restore.number, "snapshot": restore.snapshot_number}
