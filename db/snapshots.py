"""Rows of snapshots: taking one, and choosing which is current, which to continue from, and which to delete."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import and_, func, select, update
from sqlalchemy.dialects.postgresql import insert

from db.models import Build, Restore, Snapshot
from db.tombstones import doom_snapshots
from db.transaction import Transaction
from domain.status import Status

SNAPSHOTS_PREFIX = "snapshots/"
"""Prefix of the keys of all snapshots in the object store."""

KEPT_HISTORIES = 20
"""Of a build that overwrites its history again and again, the last snapshots of this many histories stay."""


async def current_snapshot(tx: Transaction, build_id: uuid.UUID) -> Snapshot | None:
    """Return a build's current snapshot: the stored one with the highest number, whenever it was stored."""
    return await tx.session.scalar(
        select(Snapshot)
        .where(Snapshot.build_id == build_id, Snapshot.state == "stored")
        .order_by(Snapshot.number.desc())
        .limit(1)
    )


async def final_snapshot(tx: Transaction, build_id: uuid.UUID) -> Snapshot | None:
    """Return a ready build's final snapshot; before one is marked as final, the current one."""
    return await tx.session.scalar(
        select(Snapshot)
        .where(Snapshot.build_id == build_id, Snapshot.state == "stored")
        .order_by(Snapshot.final.desc(), Snapshot.number.desc())
        .limit(1)
    )


async def last_product(tx: Transaction, project_id: uuid.UUID) -> Snapshot | None:
    """Return the final snapshot of the project's last ready build."""
    return await tx.session.scalar(
        select(Snapshot)
        .join(Build, Build.id == Snapshot.build_id)
        .where(
            Snapshot.project_id == project_id,
            Snapshot.state == "stored",
            Snapshot.final,
            Build.status == Status.READY,
        )
        .order_by(Build.build_version.desc(), Snapshot.number.desc())
        .limit(1)
    )


async def snapshot_to_continue(tx: Transaction, build_id: uuid.UUID) -> Snapshot | None:
    """Return the snapshot that a build goes on from: its own current one, or the one that it begins with."""
    return await current_snapshot(tx, build_id) or await first_snapshot(tx, build_id)


async def first_snapshot(tx: Transaction, build_id: uuid.UUID) -> Snapshot | None:
    """Return the snapshot that a build begins with, which its row says; None if its workspace was empty.

    The row of an earlier version says none: then it is the final one of the project's last ready build.
    """
    begins_with = and_(Snapshot.build_id == Build.start_build_id, Snapshot.number == Build.start_snapshot)
    chosen = select(Snapshot).join(Build, begins_with).where(Build.id == build_id)
    if start := await tx.session.scalar(chosen):
        return start
    build = await tx.session.get_one(Build, build_id)
    return await last_product(tx, build.project_id)


async def latest_snapshot(tx: Transaction, build_id: uuid.UUID, up_to: int) -> Snapshot | None:
    """Return a build's stored snapshot with the highest number up to `up_to`. Failed ones do not count."""
    return await tx.session.scalar(
        select(Snapshot)
        .where(Snapshot.build_id == build_id, Snapshot.state == "stored", Snapshot.number <= up_to)
        .order_by(Snapshot.number.desc())
        .limit(1)
    )


async def snapshot_of(tx: Transaction, build_id: uuid.UUID, number: int) -> Snapshot | None:
    """Return a build's stored snapshot with this number."""
    return await tx.session.scalar(
        select(Snapshot).where(Snapshot.build_id == build_id, Snapshot.number == number, Snapshot.state == "stored")
    )


async def has_snapshot(tx: Transaction, build_id: uuid.UUID, number: int) -> bool:
    """Whether there is a row of the build's snapshot with this number, whatever its state."""
    query = select(Snapshot.id).where(Snapshot.build_id == build_id, Snapshot.number == number)
    return await tx.session.scalar(query) is not None


async def history_before(tx: Transaction, build_id: uuid.UUID, number: int) -> tuple[int, str] | None:
    """Return number and commit of a build's last stored snapshot before this one, if that has a commit."""
    row = (
        await tx.session.execute(
            select(Snapshot.number, Snapshot.commit)
            .where(Snapshot.build_id == build_id, Snapshot.state == "stored", Snapshot.number < number)
            .order_by(Snapshot.number.desc())
            .limit(1)
        )
    ).first()
    return None if row is None or row.commit is None else (row.number, row.commit)


async def keep_history(tx: Transaction, build_id: uuid.UUID, number: int, replaced: int) -> None:
    """Keep a snapshot as the last one of its history, which that of snapshot `number` does not descend from.

    The last `KEPT_HISTORIES` of a build stay.
    """
    of_build = Snapshot.build_id == build_id
    await tx.session.execute(update(Snapshot).where(of_build, Snapshot.number == number).values(replaces=replaced))
    await tx.session.execute(
        update(Snapshot).where(of_build, Snapshot.number == replaced, Snapshot.state == "stored").values(kept=True)
    )
    oldest = select(Snapshot.id).where(of_build, Snapshot.kept).order_by(Snapshot.number.desc()).offset(KEPT_HISTORIES)
    await tx.session.execute(update(Snapshot).where(Snapshot.id.in_(oldest)).values(kept=False))


async def superfluous_snapshots(tx: Transaction, build_id: uuid.UUID, keep: int) -> list[uuid.UUID]:
    """Return the stored snapshots of a build to delete, so that the newest `keep` stay.

    The current one always stays, and so do those of histories that the agent has overwritten. While a restore is
    pending, the snapshot to restore and the one from before stay, too. One with which an open build begins stays.

    Locks them: a build that is being inserted and begins with one of them is waited for.
    """
    rows = await tx.session.execute(
        select(Snapshot.id, Snapshot.number)
        .where(Snapshot.build_id == build_id, Snapshot.state == "stored", ~Snapshot.final, ~Snapshot.kept)
        .order_by(Snapshot.number.desc())
        .with_for_update()
    )
    begun_with = await tx.session.scalars(
        select(Build.start_snapshot).where(Build.start_build_id == build_id, Build.closed_at.is_(None))
    )
    to_restore = await tx.session.scalar(
        select(Restore.snapshot_number).where(Restore.build_id == build_id, Restore.state == "requested")
    )
    stored = [(snapshot_id, number) for snapshot_id, number in rows]
    needed = {to_restore, *begun_with}
    others = [snapshot_id for snapshot_id, number in stored if number not in needed]
    least = 1 if to_restore is None else 2
    return others[max(least, keep - (len(stored) - len(others))) :]


async def mark_final(tx: Transaction, build_id: uuid.UUID, up_to: int) -> None:
    """Mark a build's stored snapshot with the highest number up to `up_to` as its final one, if there is one."""
    final = await latest_snapshot(tx, build_id, up_to)
    if final is not None:
        final.final = True
        await tx.session.flush()


async def ensure_snapshot(
    tx: Transaction,
    build_id: uuid.UUID,
    number: int,
    reason: str,
    claim: uuid.UUID,
    archive_key: str,
    manifest_key: str,
) -> Snapshot:
    """Insert the snapshot's row with this claim and these keys, unless it exists. Return the row, locked."""
    project_id = select(Build.project_id).where(Build.id == build_id).scalar_subquery()
    await tx.session.execute(
        insert(Snapshot)
        .values(
            id=uuid.uuid4(),
            build_id=build_id,
            project_id=project_id,
            number=number,
            reason=reason,
            claim=claim,
            archive_key=archive_key,
            manifest_key=manifest_key,
        )
        .on_conflict_do_nothing(index_elements=["build_id", "number"])
    )
    return (
        await tx.session.scalars(
            select(Snapshot).where(Snapshot.build_id == build_id, Snapshot.number == number).with_for_update()
        )
    ).one()


async def claim_snapshot(
    tx: Transaction, snapshot_id: uuid.UUID, claim: uuid.UUID, archive_key: str, manifest_key: str
) -> None:
    """Take a locked snapshot's row for the attempt with this claim, which writes these objects."""
    await tx.session.execute(
        update(Snapshot)
        .where(Snapshot.id == snapshot_id)
        .values(state="taking", claim=claim, archive_key=archive_key, manifest_key=manifest_key)
    )


@dataclass(frozen=True)
class StoredArchive:
    """An archive in the object store, and what is in it."""

    bytes: int
    sha256: str
    manifest_sha256: str
    files: int
    commit: str | None


async def record_stored(tx: Transaction, snapshot_id: uuid.UUID, claim: uuid.UUID, archive: StoredArchive) -> bool:
    """Record that the snapshot is stored and verified. Return False if the claim no longer holds."""
    recorded = await tx.session.scalar(
        update(Snapshot)
        .where(Snapshot.id == snapshot_id, Snapshot.claim == claim, Snapshot.state == "taking")
        .values(
            state="stored",
            archive_bytes=archive.bytes,
            archive_sha256=archive.sha256,
            manifest_sha256=archive.manifest_sha256,
            files=archive.files,
            commit=archive.commit,
            stored_at=func.now(),
        )
        .returning(Snapshot.id)
    )
    return recorded is not None


async def mark_deleted(tx: Transaction, snapshot_ids: Sequence[uuid.UUID]) -> None:
    """Mark snapshots as deleted. Their objects get tombstones, and go when those are due."""
    if snapshot_ids:
        await tx.session.execute(update(Snapshot).where(Snapshot.id.in_(snapshot_ids)).values(state="deleted"))
        await doom_snapshots(tx, snapshot_ids)


async def mark_failed(tx: Transaction, build_id: uuid.UUID, number: int) -> bool:
    """Mark a snapshot as failed, so that no attempt at it stores it. Return False if it has ended already."""
    state = await tx.session.scalar(
        select(Snapshot.state).where(Snapshot.build_id == build_id, Snapshot.number == number).with_for_update()
    )
    if state in ("stored", "deleted", "failed"):
        return False
    await tx.session.execute(
        update(Snapshot)
        .where(Snapshot.build_id == build_id, Snapshot.number == number)
        .values(state="failed", claim=uuid.uuid4())
    )
    return True


async def give_up_earlier(tx: Transaction, build_id: uuid.UUID, number: int) -> None:
    """Mark snapshots with lower numbers that are still being taken as failed: the run that took them was lost.

    A workflow takes one after the other. What they would have kept is in the later one, too.
    """
    await tx.session.execute(
        update(Snapshot)
        .where(Snapshot.build_id == build_id, Snapshot.number < number, Snapshot.state == "taking")
        .values(state="failed", claim=uuid.uuid4())
    )


async def keys_by_number(tx: Transaction, build_id: uuid.UUID) -> dict[int, set[str]]:
    """Return the keys of the objects that a build's snapshots name, by number.

    One that is neither stored nor being taken names none. While one is being taken, its earlier attempts may still
    write their objects.
    """
    rows = await tx.session.execute(
        select(Snapshot.number, Snapshot.state, Snapshot.archive_key, Snapshot.manifest_key).where(
            Snapshot.build_id == build_id
        )
    )
    named = ("stored", "taking")
    return {row.number: {row.archive_key, row.manifest_key} if row.state in named else set() for row in rows}


async def numbers_being_taken(tx: Transaction, build_id: uuid.UUID) -> set[int]:
    """Return the numbers of the build's snapshots that are being taken."""
    return set(
        await tx.session.scalars(
            select(Snapshot.number).where(Snapshot.build_id == build_id, Snapshot.state == "taking")
        )
    )
