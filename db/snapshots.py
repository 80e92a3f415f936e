"""Choose among a build's snapshots: which one is current, which one to continue from, which ones to delete."""

import uuid

from sqlalchemy import select

from db.models import Build, Restore, Snapshot
from db.transaction import Transaction
from domain.status import Status

SNAPSHOTS_PREFIX = "snapshots/"
"""Prefix of the keys of all snapshots in the object store."""


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


async def snapshot_to_continue(tx: Transaction, build_id: uuid.UUID) -> Snapshot | None:
    """Return the snapshot that a build starts from: its own current one, or that of the project's last ready build."""
    if own := await current_snapshot(tx, build_id):
        return own
    return await tx.session.scalar(
        select(Snapshot)
        .join(Build, Build.id == Snapshot.build_id)
        .where(
            Snapshot.project_id == select(Build.project_id).where(Build.id == build_id).scalar_subquery(),
            Snapshot.state == "stored",
            Snapshot.final,
            Build.status == Status.READY,
        )
        .order_by(Build.build_version.desc(), Snapshot.number.desc())
        .limit(1)
    )


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


async def superfluous_snapshots(tx: Transaction, build_id: uuid.UUID, keep: int) -> list[uuid.UUID]:
    """Return the stored snapshots of a build to delete, so that the newest `keep` stay.

    The current one always stays; while a restore is pending, so do the snapshot to restore and the one from before.
    """
    rows = await tx.session.execute(
        select(Snapshot.id, Snapshot.number)
        .where(Snapshot.build_id == build_id, Snapshot.state == "stored", ~Snapshot.final)
        .order_by(Snapshot.number.desc())
    )
    to_restore = await tx.session.scalar(
        select(Restore.snapshot_number).where(Restore.build_id == build_id, Restore.state == "requested")
    )
    stored = [(snapshot_id, number) for snapshot_id, number in rows]
    others = [snapshot_id for snapshot_id, number in stored if number != to_restore]
    least = 1 if to_restore is None else 2
    return others[max(least, keep - (len(stored) - len(others))) :]
