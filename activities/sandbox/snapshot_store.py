"""Stored snapshots: their keys, and verifying, restoring and deleting them. Archives are streamed, never held whole."""

import asyncio
import contextlib
import hashlib
import uuid
from datetime import datetime

from activities.sandbox.manifests import compare_manifests
from clients.archive import MANIFEST_MAX_BYTES, found_manifest, unpack
from clients.object_store import ObjectStore, StoredObject
from clients.sandbox import Sandbox
from clients.sandbox_runner import JOURNAL
from clients.workspace_lock import WorkspaceLock
from db.models import Snapshot
from db.session import Sessions
from db.snapshots import SNAPSHOTS_PREFIX, keys_by_number, numbers_being_taken
from db.tombstones import doom
from db.transaction import transaction
from domain.errors import NotFound, SnapshotFailed
from domain.manifest import Entry, digest, parse_manifest
from domain.verdicts import ObjectEvidence, may_doom_object
from services.stored_snapshots import send_snapshot

CHANGES = f"{JOURNAL}/changes"
"""In the sandbox while a restore is in progress: what it changes, for the attempt that continues it."""


async def restore_snapshot(
    store: ObjectStore, sandbox: Sandbox, snapshot: Snapshot, lock: WorkspaceLock | None = None
) -> None:
    """Replace a sandbox's workspace by a stored snapshot, then compare it with the snapshot's manifest.

    `lock`: of a workspace that an agent works in, so that a stale attempt can't restore it again.

    Raises:
        StaleClaim: a later attempt holds the lock.
        SnapshotFailed: the archive has changed in the store, or the workspace differs afterwards; says how.
    """
    manifest = await stored_manifest(store, snapshot)
    await send_snapshot(store, sandbox, snapshot)
    await unpack(sandbox, lock)
    if differences := await compare_manifests(manifest, await found_manifest(sandbox)):
        raise SnapshotFailed(
            f"The files restored from snapshot {snapshot.number} differ from it: " + "; ".join(differences)
        )


async def stored_manifest(store: ObjectStore, snapshot: Snapshot) -> list[Entry]:
    """A stored snapshot's manifest.

    Raises:
        SnapshotFailed: it is missing from the store, or has changed there.
    """
    try:
        stored = await store.get(snapshot.manifest_key, MANIFEST_MAX_BYTES)
        return await asyncio.to_thread(_verified, stored, snapshot.manifest_sha256)
    except (NotFound, ValueError) as error:
        raise SnapshotFailed(f"The manifest of snapshot {snapshot.number} can't be used: {error}") from error


def _verified(stored: bytes, sha256: str | None) -> list[Entry]:
    text = stored.decode("ascii")
    if digest(text) != sha256:
        raise ValueError("its hash differs")
    return parse_manifest(text)


async def verify_stored(store: ObjectStore, key: str, stored: StoredObject) -> None:
    """Read an object back and compare it with what was sent.

    Raises:
        SnapshotFailed: it differs or is missing.
    """
    hashed, total = hashlib.sha256(), 0
    try:
        async with contextlib.aclosing(store.stream(key)) as pieces:
            async for piece in pieces:
                hashed.update(piece)
                total += len(piece)
    except NotFound as error:
        raise SnapshotFailed("The archive is not in the object store after its upload.") from error
    if (total, hashed.hexdigest()) != (stored.bytes, stored.sha256):
        raise SnapshotFailed("The archive in the object store is not what was sent.")


async def sweep_snapshots(
    sessions: Sessions, store: ObjectStore, build_id: uuid.UUID, unnumbered_before: datetime | None = None
) -> int:
    """Write tombstones for the build's objects that no snapshot needs; returns how many. They go days later.

    Once a row is deleted or failed, all objects of its number are doomed; once it is stored, those of other attempts at
    it. While one is being taken, all stay.

    Args:
        unnumbered_before: also doom objects without a row of their number that were written before this time. Only for
            a database that was not put back to an earlier state: it may have lost the row.
    """
    prefix = _prefix(build_id)
    # List the objects before reading the rows: an attempt takes its row before it writes its objects.
    listed = await store.objects(prefix)
    uploads = await store.unfinished_uploads(prefix)
    async with transaction(sessions) as tx:
        named = await keys_by_number(tx, build_id)
        taking = await numbers_being_taken(tx, build_id)

        def is_doomed(key: str, written_at: datetime | None) -> bool:
            number = _snapshot_number(key)
            if number is None or number in taking:
                return False
            is_old = written_at is not None and unnumbered_before is not None and written_at < unnumbered_before
            return may_doom_object(
                ObjectEvidence(
                    is_ours=True,
                    has_row=number in named,
                    is_named=key in named.get(number, ()),
                    is_old=is_old,
                    is_trusted=unnumbered_before is not None,
                )
            )

        superfluous = [each.key for each in listed if is_doomed(each.key, each.written_at)]
        doomed = await doom(tx, build_id, superfluous, "no snapshot needs it")
    return doomed + await store.abort_uploads(prefix, only={key for key in uploads if is_doomed(key, None)})


def snapshot_keys(build_id: uuid.UUID, number: int, claim: uuid.UUID) -> tuple[str, str]:
    """The keys of an attempt's archive and manifest. They hold the claim, so no two attempts write the same object."""
    name = f"{_prefix(build_id)}{number:06d}-{claim.hex[:12]}"
    return f"{name}.tar.gz", f"{name}.manifest.jsonl"


def _snapshot_number(key: str) -> int | None:
    """The number of the snapshot that a key of `snapshot_keys` belongs to; None for any other key."""
    number = key.rpartition("/")[2].partition("-")[0]
    return int(number) if number.isdecimal() else None


def _prefix(build_id: uuid.UUID) -> str:
    return f"{SNAPSHOTS_PREFIX}{build_id}/"
