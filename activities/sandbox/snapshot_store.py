"""Stored snapshots: their keys, and how they are verified, restored and swept up."""

import contextlib
import hashlib
import uuid
from collections.abc import AsyncGenerator

from sqlalchemy import select

from clients.archive import MANIFEST_MAX_BYTES, found_manifest, send, unpack
from clients.object_store import ObjectStore, StoredObject
from clients.sandbox import Sandbox
from clients.sandbox_runner import JOURNAL
from clients.workspace_lock import WorkspaceLock
from db.models import Snapshot
from db.session import Sessions
from db.snapshots import SNAPSHOTS_PREFIX
from domain.errors import CofounderError, NotFound, SandboxUnavailable, SnapshotFailed
from domain.manifest import Entry, compare, digest, parse_manifest

CHANGES = f"{JOURNAL}/changes"
"""In the sandbox: what a restore in progress changes, so that an attempt that goes on with it can tell."""


async def restore_snapshot(
    store: ObjectStore, sandbox: Sandbox, snapshot: Snapshot, lock: WorkspaceLock | None = None
) -> None:
    """Replace a sandbox's workspace by a stored snapshot, and compare it with the snapshot's manifest.

    `lock`: for a workspace that an agent works in, so that a stale attempt does not restore it once more.

    Raises:
        StaleClaim: a later attempt holds the workspace.
        SnapshotFailed: the store's archive is not what was stored, or the workspace differs afterwards; says how.
    """
    manifest = await stored_manifest(store, snapshot)
    hashed = hashlib.sha256()
    trouble: CofounderError | None = None

    async def pieces() -> AsyncGenerator[bytes, None]:
        nonlocal trouble
        try:
            async with contextlib.aclosing(store.stream(snapshot.archive_key)) as archive:
                async for piece in archive:
                    hashed.update(piece)
                    yield piece
        except CofounderError as error:
            trouble = error
            raise

    try:
        await send(sandbox, pieces())
    except SandboxUnavailable as error:
        if isinstance(trouble, NotFound):
            raise SnapshotFailed(f"Snapshot {snapshot.number} is not in the object store any more.") from error
        raise trouble or error from error
    if hashed.hexdigest() != snapshot.archive_sha256:
        raise SnapshotFailed(f"The archive of snapshot {snapshot.number} has changed in the object store.")
    await unpack(sandbox, lock)
    if differences := compare(manifest, await found_manifest(sandbox)):
        raise SnapshotFailed(
            f"Snapshot {snapshot.number} was restored, but the workspace is not what its manifest says: "
            + "; ".join(differences)
        )


async def stored_manifest(store: ObjectStore, snapshot: Snapshot) -> list[Entry]:
    """A stored snapshot's manifest.

    Raises:
        SnapshotFailed: it is gone, or not what was stored.
    """
    try:
        text = (await store.get(snapshot.manifest_key, MANIFEST_MAX_BYTES)).decode("ascii")
        if digest(text) != snapshot.manifest_sha256:
            raise ValueError("its hash differs")
        return parse_manifest(text)
    except (NotFound, ValueError) as error:
        raise SnapshotFailed(f"The manifest of snapshot {snapshot.number} can't be used: {error}") from error


async def verify_stored(store: ObjectStore, key: str, stored: StoredObject) -> None:
    """Read an object back and compare it with what was sent.

    Raises:
        SnapshotFailed: it differs or is not there.
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


async def sweep_snapshots(sessions: Sessions, store: ObjectStore, build_id: uuid.UUID) -> int:
    """Delete the objects that the build's rows show to be superfluous; returns how many.

    A row makes the objects of its number superfluous when it is deleted or failed, and those of killed attempts at it
    when it is stored. An object whose number has no row is kept: the database may have been restored from a backup that
    is older than the snapshot.
    """
    prefix = _prefix(build_id)
    # Listed before the rows are read: an attempt takes its row before it writes its objects.
    keys = [*await store.keys(prefix), *await store.unfinished_uploads(prefix)]
    async with sessions.begin() as session:
        rows = await session.execute(
            select(Snapshot.number, Snapshot.state, Snapshot.archive_key, Snapshot.manifest_key).where(
                Snapshot.build_id == build_id, Snapshot.state != "taking"
            )
        )
    needed = {row.number: {row.archive_key, row.manifest_key} if row.state == "stored" else set() for row in rows}
    superfluous = {key for key in keys if key not in needed.get(_snapshot_number(key), {key})}
    await store.delete(sorted(superfluous))
    return len(superfluous) + await store.abort_uploads(prefix, only=superfluous)


def snapshot_keys(build_id: uuid.UUID, number: int, claim: uuid.UUID) -> tuple[str, str]:
    """The keys of an attempt's archive and manifest. They hold the claim: two attempts never write the same object."""
    name = f"{_prefix(build_id)}{number:06d}-{claim.hex[:12]}"
    return f"{name}.tar.gz", f"{name}.manifest.jsonl"


def _snapshot_number(key: str) -> int | None:
    """The number of the snapshot that a key belongs to; None for a key that `snapshot_keys` does not make."""
    number = key.rpartition("/")[2].partition("-")[0]
    return int(number) if number.isdecimal() else None


def _prefix(build_id: uuid.UUID) -> str:
    return f"{SNAPSHOTS_PREFIX}{build_id}/"
