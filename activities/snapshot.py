"""Snapshots of a workspace: taken, verified and restored. The archive streams through here and is never held whole."""

import contextlib
import hashlib
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import cast

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity

from activities.crash_point import crash_point
from activities.errors import application_errors
from activities.heartbeat import heartbeating
from activities.product import read_if_there, stop_processes
from activities.workspace_lock import lock_workspace
from clients.archive import (
    MANIFEST_MAX_BYTES,
    ArchiveReader,
    PackedArchive,
    discard,
    found_manifest,
    pack,
    send,
    unpack,
)
from clients.object_store import ObjectStore, StoredObject
from clients.sandbox import Sandbox, Sandboxes
from clients.sandbox_runner import JOURNAL
from clients.shielded import to_the_end
from clients.workspace_lock import WorkspaceLock
from db.feed import append_events
from db.models import Build, Snapshot
from db.session import Sessions
from db.snapshots import SNAPSHOTS_PREFIX, superfluous_snapshots
from domain.errors import (
    CofounderError,
    NeedsPerson,
    NotFound,
    SandboxUnavailable,
    SnapshotFailed,
    StaleClaim,
    StoreUnavailable,
)
from domain.events import EventType, NewEvent
from domain.manifest import Entry, compare, digest, parse_manifest, printable, render_manifest
from domain.payloads import TakenSnapshot, TakeSnapshot
from domain.text import storable

PHASE = "phase"
"""Reason of a snapshot that ends a phase."""

STILL = frozenset({"sleep", "wait", "replace"})
"""Reasons of snapshots after which the sandbox is paused or let go of. The agent's processes end before them: what
one wrote afterwards would make the files differ from the snapshot."""

CHANGES = f"{JOURNAL}/changes"
"""In the sandbox: what a restore in progress changes, so that an attempt that goes on with it can tell."""

_log = structlog.get_logger(__name__)


class SnapshotActivities:
    """`snapshot_workspace` and `note_snapshot_failure`."""

    def __init__(self, sessions: Sessions, sandboxes: Sandboxes, store: ObjectStore, kept: int) -> None:
        self._sessions = sessions
        self._sandboxes = sandboxes
        self._store = store
        self._kept = kept

    @activity.defn
    @application_errors
    async def snapshot_workspace(self, request: TakeSnapshot) -> TakenSnapshot:
        """Archive the workspace into the object store, verify it there, and let older snapshots go.

        The row is taken with a claim, and the archive's name holds the claim: two attempts never write the same object.

        Raises:
            SnapshotFailed, StoreUnavailable, SandboxUnavailable: another attempt may succeed.
            NeedsPerson: the store refuses.
            SandboxGone: there is nothing to archive any more.
            StaleClaim: another attempt has taken over.
        """
        build_id = uuid.UUID(request.build_id)
        async with heartbeating():
            claimed = await self._claim(build_id, request)
            if isinstance(claimed, TakenSnapshot):
                return claimed
            sandbox = await self._sandboxes.connect(request.sandbox_id)
            if await read_if_there(sandbox, CHANGES) is not None:
                raise SnapshotFailed("The workspace is being restored, so it is not whole. The snapshot before stands.")
            if request.reason in STILL:
                await stop_processes(await lock_workspace(sandbox))
            try:
                packed = await pack(sandbox, f"snapshot-{request.number}")
                return await self._store_and_record(claimed, request, sandbox, packed)
            finally:
                await discard(sandbox)

    @activity.defn
    @application_errors
    async def note_snapshot_failure(self, request: TakeSnapshot) -> None:
        """Tell in the feed that a snapshot was not taken. The phase that it was to end has ended all the same."""
        build_id = uuid.UUID(request.build_id)
        async with self._sessions.begin() as session:
            state = await session.scalar(
                select(Snapshot.state)
                .where(Snapshot.build_id == build_id, Snapshot.number == request.number)
                .with_for_update()
            )
            if state in ("stored", "deleted", "failed"):
                return
            await session.execute(
                update(Snapshot)
                .where(Snapshot.build_id == build_id, Snapshot.number == request.number)
                .values(state="failed", claim=uuid.uuid4())
            )
            error = storable(request.error or "") or "It could not be stored. The next snapshot makes up for it."
            data = {"number": request.number, "reason": request.reason, "error": error}
            events = [NewEvent(EventType.SNAPSHOT_FAILED, data)]
            if request.reason == PHASE:
                events.append(await _complete_phase(session, request, request.commit, ""))
            await append_events(session, build_id, events)

    async def _claim(self, build_id: uuid.UUID, request: TakeSnapshot) -> "_Claimed | TakenSnapshot":
        """Take the row for this attempt; a snapshot that was stored before is returned as it is."""
        claim = uuid.uuid4()
        name = f"{_prefix(build_id)}{request.number:06d}-{claim.hex[:12]}"  # read by `_number_of`
        claimed = _Claimed(uuid.uuid4(), build_id, claim, f"{name}.tar.gz", f"{name}.manifest.jsonl")
        async with self._sessions.begin() as session:
            project_id = select(Build.project_id).where(Build.id == build_id).scalar_subquery()
            if await session.scalar(select(Build.closed_at).where(Build.id == build_id)) is not None:
                raise StaleClaim("The build has ended, so no snapshot of it is taken any more.")
            columns = {"claim": claim, "archive_key": claimed.archive_key, "manifest_key": claimed.manifest_key}
            await session.execute(
                insert(Snapshot)
                .values(
                    id=claimed.id,
                    build_id=build_id,
                    project_id=project_id,
                    number=request.number,
                    reason=request.reason,
                    **columns,
                )
                .on_conflict_do_nothing(index_elements=["build_id", "number"])
            )
            row = (
                await session.scalars(
                    select(Snapshot)
                    .where(Snapshot.build_id == build_id, Snapshot.number == request.number)
                    .with_for_update()
                )
            ).one()
            if row.state in ("stored", "deleted"):
                return TakenSnapshot(
                    number=row.number, files=row.files or 0, bytes=row.archive_bytes or 0, commit=row.commit
                )
            await session.execute(update(Snapshot).where(Snapshot.id == row.id).values(state="taking", **columns))
            return _Claimed(row.id, build_id, claim, claimed.archive_key, claimed.manifest_key)

    async def _store_and_record(
        self, claimed: "_Claimed", request: TakeSnapshot, sandbox: Sandbox, packed: PackedArchive
    ) -> TakenSnapshot:
        try:
            stored, entries = await self._upload(claimed.archive_key, sandbox, packed)
            manifest = render_manifest(entries)
            await self._store.put(claimed.manifest_key, manifest.encode("ascii"), "application/jsonl")
            await verify_stored(self._store, claimed.archive_key, stored)
            await crash_point("snapshot.uploaded")
        except BaseException:
            await to_the_end(self._store.delete([claimed.archive_key, claimed.manifest_key]))
            raise
        try:
            await self._record(claimed, request, packed, stored, entries, digest(manifest))
        except StaleClaim:
            await to_the_end(self._store.delete([claimed.archive_key, claimed.manifest_key]))
            raise
        try:
            await sweep_snapshots(self._sessions, self._store, claimed.build_id)
        except (NeedsPerson, NotFound, StoreUnavailable) as error:
            _log.warning(
                "old snapshots were not deleted; the next one tries again", build_id=request.build_id, error=str(error)
            )
        return TakenSnapshot(number=request.number, files=len(entries), bytes=stored.bytes, commit=packed.commit)

    async def _upload(self, key: str, sandbox: Sandbox, packed: PackedArchive) -> tuple[StoredObject, list[Entry]]:
        """Stream the archive from the sandbox to the store; the manifest comes of the same bytes as they pass by."""
        async with (
            ArchiveReader() as reader,
            contextlib.aclosing(cast("AsyncGenerator[bytes, None]", sandbox.stream(packed.path))) as pieces,
        ):

            async def passing_by() -> AsyncGenerator[bytes, None]:
                passed = 0
                async for piece in pieces:
                    passed += len(piece)
                    if passed > packed.bytes:
                        raise SnapshotFailed("The archive grew while it was read.")
                    await reader.feed(piece)
                    yield piece

            stored = await self._store.put_stream(key, passing_by())
            if (stored.bytes, stored.sha256) != (packed.bytes, packed.sha256):
                raise SnapshotFailed("The archive did not arrive whole from the sandbox.")
            return stored, await reader.entries()

    async def _record(
        self,
        claimed: "_Claimed",
        request: TakeSnapshot,
        packed: PackedArchive,
        stored: StoredObject,
        entries: list[Entry],
        manifest_sha256: str,
    ) -> None:
        """The row, what it makes superfluous, and the feed, in one transaction; none of it without the claim."""
        files = len(entries)
        async with self._sessions.begin() as session:
            recorded = await session.scalar(
                update(Snapshot)
                .where(Snapshot.id == claimed.id, Snapshot.claim == claimed.claim, Snapshot.state == "taking")
                .values(
                    state="stored",
                    archive_bytes=stored.bytes,
                    archive_sha256=stored.sha256,
                    manifest_sha256=manifest_sha256,
                    files=files,
                    commit=packed.commit,
                    stored_at=func.now(),
                )
                .returning(Snapshot.id)
            )
            if recorded is None:
                raise StaleClaim(f"Another attempt takes snapshot {request.number} now.")
            superfluous = await superfluous_snapshots(session, claimed.build_id, self._kept)
            await session.execute(update(Snapshot).where(Snapshot.id.in_(superfluous)).values(state="deleted"))
            data = {"number": request.number, "reason": request.reason, "bytes": stored.bytes, "files": files}
            events = [NewEvent(EventType.SNAPSHOT_STORED, data)]
            if request.reason == PHASE:
                events.insert(
                    0, await _complete_phase(session, request, request.commit or packed.commit, packed.subject)
                )
            await append_events(session, claimed.build_id, events)


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
    superfluous = {key for key in keys if key not in needed.get(_number_of(key), {key})}
    await store.delete(sorted(superfluous))
    return len(superfluous) + await store.abort_uploads(prefix, only=superfluous)


@dataclass(frozen=True)
class _Claimed:
    """A row that this attempt holds, and the objects that only it writes."""

    id: uuid.UUID
    build_id: uuid.UUID
    claim: uuid.UUID
    archive_key: str
    manifest_key: str


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


async def _complete_phase(session: AsyncSession, request: TakeSnapshot, commit: str | None, title: str) -> NewEvent:
    """Count the phase on the build's row; returns what the feed says of it."""
    phase = request.phase or 0
    await session.execute(
        update(Build)
        .where(Build.id == uuid.UUID(request.build_id))
        .values(phases_completed=func.greatest(Build.phases_completed, phase))
    )
    return NewEvent(EventType.PHASE_COMPLETED, {"phase": phase, "commit": commit, "title": printable(title)})


def _prefix(build_id: uuid.UUID) -> str:
    return f"{SNAPSHOTS_PREFIX}{build_id}/"


def _number_of(key: str) -> int | None:
    """The number of the snapshot that a key belongs to; None for a key that no snapshot has."""
    number = key.rpartition("/")[2].partition("-")[0]
    return int(number) if number.isdecimal() else None
