"""Stored snapshots: which one a request means, and their way into a sandbox. Archives are streamed."""

import contextlib
import hashlib
import uuid
from collections.abc import AsyncGenerator
from typing import Protocol

from clients.archive import send
from clients.sandbox import Sandbox
from db.builds import find_snapshot
from db.models import Snapshot
from db.snapshots import current_snapshot
from db.transaction import Transaction
from domain.errors import CofounderError, NotFound, SandboxUnavailable, SnapshotFailed, SnapshotNotStored


class ArchiveSource(Protocol):
    """What is needed of the object store."""

    def stream(self, key: str) -> AsyncGenerator[bytes, None]:
        """The object's bytes, in pieces."""


async def require_snapshot(tx: Transaction, build_id: uuid.UUID, number: int | None) -> Snapshot:
    """Return a build's stored snapshot with this number; the current one if `number` is None.

    Raises:
        NotFound: there is none, or it was deleted.
        SnapshotNotStored: it is not stored yet, or could not be.
    """
    if number is None:
        current = await current_snapshot(tx, build_id)
        if current is None:
            raise NotFound(f"Build {build_id} has no snapshot yet.")
        return current
    snapshot = await find_snapshot(tx, build_id, number)
    if snapshot is None:
        raise NotFound(f"Build {build_id} has no snapshot {number}.")
    if snapshot.state == "deleted":
        raise NotFound(f"Snapshot {number} of build {build_id} was deleted: only the latest ones are kept.")
    if snapshot.state != "stored":
        raise SnapshotNotStored(
            f"Snapshot {number} of build {build_id} is not stored: its state is `{snapshot.state}`.",
            {"state": snapshot.state},
        )
    return snapshot


async def send_snapshot(store: ArchiveSource, sandbox: Sandbox, snapshot: Snapshot) -> None:
    """Upload a stored snapshot's archive to the sandbox, for `unpack`.

    Raises:
        SnapshotFailed: the archive is missing from the store, or has changed there.
    """
    hashed = hashlib.sha256()
    store_error: CofounderError | None = None

    async def pieces() -> AsyncGenerator[bytes, None]:
        nonlocal store_error
        try:
            async with contextlib.aclosing(store.stream(snapshot.archive_key)) as archive:
                async for piece in archive:
                    hashed.update(piece)
                    yield piece
        except CofounderError as error:
            store_error = error
            raise

    try:
        await send(sandbox, pieces())
    except SandboxUnavailable as error:
        if isinstance(store_error, NotFound):
            raise SnapshotFailed(f"Snapshot {snapshot.number} is not in the object store any more.") from error
        raise store_error or error from error
    if hashed.hexdigest() != snapshot.archive_sha256:
        raise SnapshotFailed(f"The archive of snapshot {snapshot.number} has changed in the object store.")
