"""Tombstones: an object of the store goes days after a row has said that it is not needed, never before.

What was erased goes at once. Its tombstones are for what a process that hung meanwhile writes later.
"""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Select, delete, func, or_, select, text
from sqlalchemy.dialects.postgresql import insert

from db.models import DoomedObject, PhaseDiff, Snapshot
from db.transaction import Transaction

GRACE = timedelta(days=7)
"""An object stays this long after its tombstone was written: a database that is put back up to this far still finds
what its rows name."""

WRITERS_GONE = timedelta(hours=2)
"""A snapshot takes a quarter of an hour at most. What is written later than this has a row."""

_ROWS_AT_ONCE = 1000

_ROTATED = text("""
    insert into doomed_objects (key, build_id, due_at, why)
    select named.key, snapshots.build_id, now() + :grace, 'newer snapshots are kept'
    from snapshots, lateral (values (archive_key), (manifest_key)) named (key)
    where snapshots.id = any(:ids) and snapshots.state = 'deleted'
    on conflict do nothing
""")


async def doom_snapshots(tx: Transaction, snapshot_ids: Sequence[uuid.UUID]) -> None:
    """Write the tombstones of the objects of snapshots whose rows are marked as deleted."""
    ids = {"grace": GRACE, "ids": list(snapshot_ids)}
    await tx.session.execute(_ROTATED, ids)


async def doom(tx: Transaction, build_id: uuid.UUID, keys: Collection[str], why: str) -> int:
    """Write tombstones; return how many are new."""
    if not keys:
        return 0
    rows = [{"key": key, "build_id": build_id, "due_at": func.now() + GRACE, "why": why} for key in sorted(keys)]
    new = await tx.session.scalars(
        insert(DoomedObject).values(rows).on_conflict_do_nothing().returning(DoomedObject.key)
    )
    return len(new.all())


async def doom_prefixes(tx: Transaction, prefixes: Mapping[str, uuid.UUID]) -> None:
    """Write tombstones for whatever is below these prefixes, which end in a slash, when all writers have given up.

    Args:
        prefixes: each with the build, or the export, that was erased.
    """
    rows = [
        {"key": prefix, "build_id": erased, "due_at": func.now() + WRITERS_GONE, "why": "it was erased"}
        for prefix, erased in prefixes.items()
    ]
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        new = insert(DoomedObject).values(rows[start : start + _ROWS_AT_ONCE])
        await tx.session.execute(new.on_conflict_do_nothing())


def is_prefix(key: str) -> bool:
    """Whether a tombstone is for all that is below its key."""
    return key.endswith("/")


async def spare(tx: Transaction, keys: Collection[str]) -> None:
    """Remove tombstones. A trigger does this for the keys that the row of a snapshot names."""
    await tx.session.execute(delete(DoomedObject).where(DoomedObject.key.in_(keys)))


@dataclass(frozen=True)
class DueObject:
    """An object whose time is over. `is_named`: a row names it nevertheless."""

    key: str
    build_id: uuid.UUID
    is_named: bool


async def lock_due(tx: Transaction, limit: int, now: datetime) -> list[DueObject]:
    """Return up to `limit` objects that are due, and lock their tombstones until the transaction ends.

    A row that comes to name one of them waits for that. Tombstones that another reaper has locked are left out.
    """
    query = _due(limit, now).with_for_update(skip_locked=True, of=DoomedObject)
    return [DueObject(key, build_id, named) for key, build_id, named in await tx.session.execute(query)]


async def list_due(tx: Transaction, limit: int, now: datetime) -> list[DueObject]:
    """Return up to `limit` objects that are due."""
    return [DueObject(key, build_id, named) for key, build_id, named in await tx.session.execute(_due(limit, now))]


def _due(limit: int, now: datetime) -> Select[str, uuid.UUID, bool]:
    is_named = (
        select(Snapshot.id)
        .where(
            Snapshot.build_id == DoomedObject.build_id,
            Snapshot.state.in_(("stored", "taking")),
            or_(Snapshot.archive_key == DoomedObject.key, Snapshot.manifest_key == DoomedObject.key),
        )
        .exists()
    )
    is_diff = (
        select(PhaseDiff.phase)
        .where(PhaseDiff.build_id == DoomedObject.build_id, PhaseDiff.object_key == DoomedObject.key)
        .exists()
    )
    return (
        select(DoomedObject.key, DoomedObject.build_id, or_(is_named, is_diff))
        .where(DoomedObject.due_at <= now)
        .order_by(DoomedObject.due_at)
        .limit(limit)
    )


async def doomed_keys(tx: Transaction, build_id: uuid.UUID) -> set[str]:
    """Return the keys of a build's objects that have a tombstone."""
    return set(await tx.session.scalars(select(DoomedObject.key).where(DoomedObject.build_id == build_id)))
