"""Stored snapshots on their way into a sandbox. Archives are streamed, never held whole."""

import contextlib
import hashlib
from collections.abc import AsyncGenerator
from typing import Protocol

from clients.archive import send
from clients.sandbox import Sandbox
from db.models import Snapshot
from domain.errors import CofounderError, NotFound, SandboxUnavailable, SnapshotFailed


class ArchiveSource(Protocol):
    """What is needed of the object store."""

    def stream(self, key: str) -> AsyncGenerator[bytes, None]:
        """The object's bytes, in pieces."""


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
