"""Restores: what a founder wants the workspace to be again. One of a build waits at a time."""

import uuid
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.feed import append_events
from db.models import Restore, Snapshot, ToolCall
from domain.events import EventType, NewEvent


async def find_restore(session: AsyncSession, build_id: uuid.UUID, idempotency_key: str) -> Restore | None:
    """The restore that a request with this key asked for."""
    return await session.scalar(
        select(Restore).where(Restore.build_id == build_id, Restore.idempotency_key == idempotency_key)
    )


async def requested_restore(session: AsyncSession, build_id: uuid.UUID) -> Restore | None:
    """The build's restore that has not been carried out yet."""
    return await session.scalar(select(Restore).where(Restore.build_id == build_id, Restore.state == "requested"))


async def commits_of(session: AsyncSession, build_id: uuid.UUID) -> set[str]:
    """The commits that the build's agent has made, each of which ended a phase, and those of its snapshots."""
    made = await session.scalars(
        select(ToolCall.commit).where(ToolCall.build_id == build_id, ToolCall.commit.is_not(None))
    )
    stored = await session.scalars(
        select(Snapshot.commit).where(Snapshot.build_id == build_id, Snapshot.commit.is_not(None))
    )
    return {commit for commit in [*made, *stored] if commit}


async def snapshot_at(session: AsyncSession, build_id: uuid.UUID, commit: str) -> Snapshot | None:
    """The build's last stored snapshot whose HEAD is this commit, which may be given by its first digits."""
    return await session.scalar(
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
    session: AsyncSession,
    build_id: uuid.UUID,
    *,
    snapshot_number: int | None,
    commit: str | None,
    idempotency_key: str | None,
) -> Restore:
    """Ask for a restore, with its line in the feed. The build's row is locked."""
    last = await session.scalar(select(func.coalesce(func.max(Restore.number), 0)).where(Restore.build_id == build_id))
    restore = Restore(
        build_id=build_id,
        number=int(last or 0) + 1,
        snapshot_number=snapshot_number,
        commit=commit,
        idempotency_key=idempotency_key,
    )
    session.add(restore)
    await session.flush()
    await session.refresh(restore)
    await append_events(session, build_id, [NewEvent(EventType.RESTORE_ASKED, _told(restore))])
    return restore


async def end_restore(
    session: AsyncSession,
    build_id: uuid.UUID,
    number: int,
    *,
    error: str | None = None,
    kept_as: int | None = None,
    stored_as: int | None = None,
) -> None:
    """Write how a restore went, with its line in the feed; once."""
    restore = await session.get_one(Restore, (build_id, number), with_for_update=True)
    if restore.state != "requested":
        return
    restore.state, restore.ended_at = ("failed" if error else "done"), func.now()
    restore.error, restore.kept_as, restore.stored_as = error, kept_as, stored_as
    event = NewEvent(EventType.RESTORE_FAILED, {"number": number, "error": error})
    if error is None:
        stored = {"kept_as": kept_as, "stored_as": stored_as}
        event = NewEvent(EventType.RESTORE_DONE, _told(restore) | stored)
    await session.flush()
    await append_events(session, build_id, [event])


async def untold_restores(session: AsyncSession, build_id: uuid.UUID) -> Sequence[tuple[Restore, str | None]]:
    """Restores that were carried out and that the agent has not been told of, each with the HEAD that it left."""
    found = await session.execute(
        select(Restore, Snapshot.commit)
        .outerjoin(Snapshot, (Snapshot.build_id == Restore.build_id) & (Snapshot.number == Restore.stored_as))
        .where(Restore.build_id == build_id, Restore.state == "done", Restore.turn.is_(None))
        .order_by(Restore.number)
    )
    return [(restore, commit) for restore, commit in found]


async def mark_told(session: AsyncSession, untold: Sequence[tuple[Restore, str | None]], turn: int) -> None:
    """The agent is told of these restores in this turn's user message, which this transaction stores."""
    for restore, _ in untold:
        restore.turn = turn
    await session.flush()


def describe_target(restore: Restore) -> str:
    """What the workspace is restored to, in words."""
    return f"commit {restore.commit}" if restore.commit else f"snapshot {restore.snapshot_number}"


def _told(restore: Restore) -> dict[str, object]:
    target = {"commit": restore.commit} if restore.commit else {"snapshot": restore.snapshot_number}
    return {"number": restore.number, **target}
