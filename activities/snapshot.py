"""Taking snapshots of a workspace. The archive is streamed from the sandbox to the store and never held whole."""

import contextlib
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import cast

import structlog
from temporalio import activity

from activities.runtime.crash_point import crash_point
from activities.runtime.errors import application_errors
from activities.runtime.heartbeat import heartbeating
from activities.runtime.workspace_lock import lock_workspace
from activities.sandbox.manifests import write_manifest
from activities.sandbox.phase_diffs import PhaseDiffs, PutDiff, diff_key
from activities.sandbox.product import read_optional, stop_processes
from activities.sandbox.snapshot_store import CHANGES, snapshot_keys, sweep_snapshots, verify_stored
from clients.archive import (
    ArchiveReader,
    PackedArchive,
    check_repository,
    discard,
    pack,
)
from clients.cancellation import run_to_completion
from clients.object_store import ObjectStore, StoredObject
from clients.sandbox import Sandbox, Sandboxes
from db.builds import complete_phase, require_open
from db.feed import append_events
from db.phase_diffs import insert_diff
from db.session import Sessions
from db.snapshots import (
    StoredArchive,
    claim_snapshot,
    ensure_snapshot,
    give_up_earlier,
    history_before,
    keep_history,
    mark_deleted,
    mark_failed,
    record_stored,
    superfluous_snapshots,
)
from db.transaction import Transaction, transaction
from domain.errors import (
    NeedsPerson,
    NotFound,
    SnapshotFailed,
    StaleClaim,
    StoreUnavailable,
)
from domain.events import BuildEvent, GuardEvent, PhaseCompletedEvent, SnapshotFailedEvent, SnapshotStoredEvent
from domain.manifest import Entry, printable
from domain.payloads import SnapshotReason, TakenSnapshot, TakeSnapshot
from domain.text import storable

STILL = frozenset({SnapshotReason.SLEEP, SnapshotReason.WAIT, SnapshotReason.REPLACE, SnapshotReason.GATE})
"""Reasons of snapshots after which the sandbox is paused or killed. The agent's processes are ended before they are
taken: a process that went on writing would make the files differ from the snapshot, or from the commit that the gate
checks."""

_REWRITTEN = (
    "The agent has overwritten the product's git history: it does not contain commit {commit} any more. Snapshot "
    "{number} has the work as it was before. It is kept, and you can restore it."
)
"""What the founder reads when the history of a snapshot does not descend from that of the one before."""

_log = structlog.get_logger(__name__)


class SnapshotActivities:
    """`snapshot_workspace` and `note_snapshot_failure`."""

    def __init__(self, sessions: Sessions, sandboxes: Sandboxes, store: ObjectStore, kept: int) -> None:
        self._sessions = sessions
        self._sandboxes = sandboxes
        self._store = store
        self._kept = kept
        self._diffs = PhaseDiffs(sessions, store)

    @activity.defn
    @application_errors
    async def snapshot_workspace(self, request: TakeSnapshot) -> TakenSnapshot:
        """Archive the workspace into the object store, verify it there, and delete older snapshots.

        Raises:
            SnapshotFailed, StoreUnavailable, SandboxUnavailable: another attempt may succeed.
            NeedsPerson: the store refuses.
            SandboxGone: there is nothing left to archive.
            StaleClaim: another attempt has taken over.
            RowsAreAhead: the build has ended.
        """
        build_id = uuid.UUID(request.build_id)
        async with heartbeating():
            claimed = await self._claim(build_id, request)
            if isinstance(claimed, TakenSnapshot):
                await self._sweep(build_id)  # the attempt that stored it may have died before it did
                return claimed
            sandbox = await self._sandboxes.connect(request.sandbox_id)
            if await read_optional(sandbox, CHANGES) is not None:
                raise SnapshotFailed(
                    "The workspace is being restored, so it is incomplete. The last snapshot remains the current one."
                )
            if request.reason in STILL:
                await stop_processes(await lock_workspace(sandbox))
            try:
                packed = await pack(sandbox, f"snapshot-{request.number}")
                replaced = await self._replaced_history(request, sandbox, packed)
                return await self._store_and_record(claimed, request, sandbox, packed, replaced)
            finally:
                await discard(sandbox)

    @activity.defn
    @application_errors
    async def note_snapshot_failure(self, request: TakeSnapshot) -> None:
        """Say in the feed that a snapshot was not taken. The phase that it was taken for has ended nevertheless."""
        build_id = uuid.UUID(request.build_id)
        async with transaction(self._sessions) as tx:
            if not await mark_failed(tx, build_id, request.number):
                return
            error = storable(request.error or "") or "It could not be stored. The next snapshot makes up for it."
            events: list[BuildEvent] = [SnapshotFailedEvent(number=request.number, reason=request.reason, error=error)]
            if request.reason == SnapshotReason.PHASE:
                events += await _complete_phase(tx, request, request.commit, "")
            await append_events(tx, build_id, events)

    async def _claim(self, build_id: uuid.UUID, request: TakeSnapshot) -> "_Claimed | TakenSnapshot":
        """Claim the row for this attempt. A snapshot that was stored before is returned instead."""
        claim = uuid.uuid4()
        archive_key, manifest_key = snapshot_keys(build_id, request.number, claim)
        async with transaction(self._sessions) as tx:
            await require_open(tx, build_id)
            row = await ensure_snapshot(tx, build_id, request.number, request.reason, claim, archive_key, manifest_key)
            if row.state in ("stored", "deleted"):
                return TakenSnapshot.sparse(
                    number=row.number,
                    files=row.files or 0,
                    bytes=row.archive_bytes or 0,
                    commit=row.commit,
                    rewritten=row.replaces is not None,
                )
            await claim_snapshot(tx, row.id, claim, archive_key, manifest_key)
            return _Claimed(
                row.id, build_id, claim, archive_key, manifest_key, diff_key(build_id, request.phase or 0, claim)
            )

    async def _replaced_history(
        self, request: TakeSnapshot, sandbox: Sandbox, packed: PackedArchive
    ) -> tuple[int, str] | None:
        """Check the archived repository.

        Returns:
            Number and commit of the snapshot before, if the repository's HEAD does not descend from that commit. None
            after a restore: going back is what the founder wants then.
        """
        async with transaction(self._sessions) as tx:
            before = await history_before(tx, uuid.UUID(request.build_id), request.number)
        earlier = None if before is None or request.reason == SnapshotReason.RESTORE else before[1]
        check = await check_repository(sandbox, packed, earlier)
        if not check.checked and packed.commit is not None:
            _log.warning("a snapshot's repository is too large to be checked", build_id=request.build_id)
        return before if check.rewritten else None

    async def _store_and_record(
        self,
        claimed: "_Claimed",
        request: TakeSnapshot,
        sandbox: Sandbox,
        packed: PackedArchive,
        replaced: tuple[int, str] | None,
    ) -> TakenSnapshot:
        try:
            async with self._diffs.task(request, sandbox, packed, claimed.diff_key) as diff_task:
                stored, entries = await self._upload(claimed.archive_key, sandbox, packed)
                manifest, manifest_sha256 = await write_manifest(entries)
                await self._store.put(claimed.manifest_key, manifest.encode("ascii"), "application/jsonl")
                await verify_stored(self._store, claimed.archive_key, stored)
                diff = await diff_task
            await crash_point("snapshot.uploaded")
        except BaseException:
            await run_to_completion(self._store.delete(claimed.keys))
            raise
        archive = StoredArchive(stored.bytes, stored.sha256, manifest_sha256, len(entries), packed.commit)
        try:
            await self._record(claimed, request, packed, archive, diff, replaced)
        except StaleClaim:
            await run_to_completion(self._store.delete(claimed.keys))
            raise
        await self._sweep(claimed.build_id)
        return TakenSnapshot.sparse(
            number=request.number,
            files=len(entries),
            bytes=stored.bytes,
            commit=packed.commit,
            rewritten=replaced is not None,
        )

    async def _sweep(self, build_id: uuid.UUID) -> None:
        try:
            await sweep_snapshots(self._sessions, self._store, build_id)
        except (NeedsPerson, NotFound, StoreUnavailable) as error:
            _log.warning(
                "old snapshots were not deleted; the next one tries again", build_id=str(build_id), error=error
            )

    async def _upload(self, key: str, sandbox: Sandbox, packed: PackedArchive) -> tuple[StoredObject, list[Entry]]:
        """Stream the archive from the sandbox to the store, and read the manifest's entries from the same bytes."""
        async with (
            ArchiveReader() as reader,
            contextlib.aclosing(cast("AsyncGenerator[bytes, None]", sandbox.stream(packed.path))) as pieces,
        ):

            async def forwarded() -> AsyncGenerator[bytes, None]:
                total = 0
                async for piece in pieces:
                    total += len(piece)
                    if total > packed.bytes:
                        raise SnapshotFailed("The archive grew while it was read.")
                    await reader.feed(piece)
                    yield piece

            stored = await self._store.put_stream(key, forwarded())
            if (stored.bytes, stored.sha256) != (packed.bytes, packed.sha256):
                raise SnapshotFailed("The archive did not arrive whole from the sandbox.")
            return stored, await reader.entries()

    async def _record(
        self,
        claimed: "_Claimed",
        request: TakeSnapshot,
        packed: PackedArchive,
        archive: StoredArchive,
        diff: PutDiff | None,
        replaced: tuple[int, str] | None,
    ) -> None:
        """Write the row, mark the snapshots that it makes superfluous, and append the events, if the claim still holds.

        Raises:
            StaleClaim: it does not; nothing is written.
        """
        async with transaction(self._sessions) as tx:
            if not await record_stored(tx, claimed.id, claimed.claim, archive):
                raise StaleClaim(f"Another attempt takes snapshot {request.number} now.")
            await give_up_earlier(tx, claimed.build_id, request.number)
            if replaced is not None:
                await keep_history(tx, claimed.build_id, request.number, replaced[0])
            superfluous = await superfluous_snapshots(tx, claimed.build_id, self._kept)
            await mark_deleted(tx, superfluous)
            events: list[BuildEvent] = [
                SnapshotStoredEvent(
                    number=request.number, reason=request.reason, bytes=archive.bytes, files=archive.files
                )
            ]
            if request.reason == SnapshotReason.PHASE:
                events = [
                    *await _complete_phase(tx, request, request.commit or packed.commit, packed.subject, diff),
                    *events,
                ]
            if replaced is not None:
                number, commit = replaced
                events.append(GuardEvent(text=_REWRITTEN.format(commit=commit[:12], number=number)))
            await append_events(tx, claimed.build_id, events)


@dataclass(frozen=True)
class _Claimed:
    """A row that this attempt has claimed, and the objects that only this attempt writes."""

    id: uuid.UUID
    build_id: uuid.UUID
    claim: uuid.UUID
    archive_key: str
    manifest_key: str
    diff_key: str

    @property
    def keys(self) -> list[str]:
        """The keys of the objects."""
        return [self.archive_key, self.manifest_key, self.diff_key]


async def _complete_phase(
    tx: Transaction, request: TakeSnapshot, commit: str | None, title: str, diff: PutDiff | None = None
) -> list[BuildEvent]:
    """Count the phase in the build's row; returns its event, unless it was counted before."""
    phase = request.phase or 0
    build_id = uuid.UUID(request.build_id)
    if not await complete_phase(tx, build_id, phase):
        return []
    event = PhaseCompletedEvent(phase=phase, commit=commit, title=printable(title))
    if diff is None or not await insert_diff(tx, build_id, phase, diff.diff, diff.key):
        return [event]
    counts = {"files": diff.diff.files, "additions": diff.diff.additions, "deletions": diff.diff.deletions}
    return [event.model_copy(update=counts)]
