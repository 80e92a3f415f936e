"""The build's sandbox: opened or adopted, paused, resumed and verified, and let go of."""

import json
import shlex
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity

from activities.runtime.crash_point import crash_point
from activities.runtime.errors import application_errors
from activities.runtime.heartbeat import heartbeating
from activities.runtime.workspace_lock import lock_workspace
from activities.sandbox.product import SMALL_SECONDS, kill_all, read_if_there, stop_processes
from activities.sandbox.snapshot_store import CHANGES, restore_snapshot, stored_manifest
from clients.archive import found_manifest
from clients.object_store import ObjectStore
from clients.sandbox import Role, Sandbox, Sandboxes
from clients.sandbox_runner import JOURNAL, WORKSPACE
from clients.workspace_lock import WorkspaceLock
from db.feed import append_events
from db.models import Build, Event, Snapshot, Turn
from db.session import Sessions
from db.snapshots import snapshot_to_continue
from db.tool_calls import calls_since, last_outcome_in
from domain import recovery
from domain.errors import SandboxGone, SandboxUnavailable, StaleClaim
from domain.events import EventType, NewEvent
from domain.manifest import compare
from domain.payloads import (
    OpenedWorkspace,
    OpenWorkspace,
    ResumedWorkspace,
    ResumeWorkspace,
    SandboxInput,
    SandboxRef,
)
from domain.recovery import Reapplied, RecordedCall

_OPENED = f"{JOURNAL}/opened"
"""In the sandbox: the workspace is whole. Holds the number of the snapshot that it was restored from, if any."""

_FRESH = (
    "It is a fresh sandbox: no process of before runs, and what was installed outside of the workspace, or in folders "
    "that git ignores, such as node_modules and .venv, has to be installed again."
)

_log = structlog.get_logger(__name__)


class WorkspaceActivities:
    """`open_workspace`, `pause_workspace`, `resume_workspace` and `release_workspace`."""

    def __init__(self, sessions: Sessions, sandboxes: Sandboxes, store: ObjectStore) -> None:
        self._sessions = sessions
        self._sandboxes = sandboxes
        self._store = store

    @activity.defn
    @application_errors
    async def open_workspace(self, request: OpenWorkspace) -> OpenedWorkspace:
        """Adopt the build's sandbox that an earlier attempt made, or create one. A fresh one is given the build's own
        current snapshot, or that of the project's last ready build, so that a second build continues the product.

        Raises:
            SandboxUnavailable, SnapshotFailed, StoreUnavailable: another attempt may succeed.
            NeedsPerson: the sandbox service or the store refuses.
        """
        build_id = uuid.UUID(request.build_id)
        async with heartbeating(), _again_when_gone():
            before = await self._known(build_id)
            sandbox, age = await self._adopt_or_create(build_id, before)
            await crash_point("workspace.made")
            if not await _exists(sandbox, _OPENED):
                lock = await lock_workspace(sandbox)
                async with self._sessions.begin() as session:
                    snapshot = await snapshot_to_continue(session, build_id)
                await self._fill(sandbox, lock, snapshot)
            async with self._sessions.begin() as session:
                await _claim_sandbox(session, build_id, sandbox, before)
            restored_from = await read_if_there(sandbox, _OPENED)
            return OpenedWorkspace(
                sandbox=await _ref(sandbox),
                restored_from=int(restored_from) if restored_from else None,
                opened_at=_started_at(age),
            )

    @activity.defn
    @application_errors
    async def pause_workspace(self, request: SandboxInput) -> None:
        """End the processes that the agent has started, then pause the sandbox. One that is gone needs no pause.

        Raises:
            SandboxUnavailable: another attempt may succeed.
            StaleClaim: the build has gone on since.
        """
        async with heartbeating():
            try:
                sandbox = await self._sandboxes.connect(request.sandbox_id)
                await stop_processes(await lock_workspace(sandbox))
            except SandboxGone:
                return
            await self._sandboxes.pause(request.sandbox_id)

    @activity.defn
    @application_errors
    async def resume_workspace(self, request: ResumeWorkspace) -> ResumedWorkspace:
        """Resume the sandbox and verify its files against the current snapshot; where they differ, or where the
        sandbox is gone, restore the snapshot and apply the edits again that were made since. The RESUMED event tells
        the founder and the agent what changed.

        An attempt that finds a restore begun begins it anew: it wipes the workspace, so no edit is applied twice.

        Raises:
            SandboxUnavailable, SnapshotFailed, StoreUnavailable: another attempt may succeed.
            StaleClaim: a later attempt holds the workspace.
            NeedsPerson: the sandbox service or the store refuses.
        """
        build_id = uuid.UUID(request.build_id)
        async with heartbeating(), _again_when_gone():
            before = await self._known(build_id)
            sandbox, age = await self._adopt_or_create(build_id, request.sandbox_id, fresh=request.replace)
            lock = await lock_workspace(sandbox)
            async with self._sessions.begin() as session:
                snapshot = await snapshot_to_continue(session, build_id)
            changes = await self._changes(build_id, sandbox, snapshot, request)
            restored, reapplied = bool(changes), Reapplied()
            if restored:
                begun = shlex.quote(json.dumps(changes))
                await lock.run(f"printf %s {begun} >{CHANGES} && rm -f {_OPENED}")
                await self._fill(sandbox, lock, snapshot)
                async with self._sessions.begin() as session:
                    calls = await calls_since(session, build_id, snapshot)
                reapplied = await _reapply(sandbox, lock, calls)
                changes += recovery.describe_reapplied(calls, reapplied)
                if sandbox.id != request.sandbox_id:
                    changes.append(_FRESH)
            async with self._sessions.begin() as session:
                await _claim_sandbox(session, build_id, sandbox, before)
                data = {
                    "reason": request.cause,
                    "continuing_from": await _position(session, build_id),
                    "changes": changes,
                }
                await append_events(session, build_id, [NewEvent(EventType.RESUMED, data)])
            if sandbox.id != request.sandbox_id:
                await self._let_go_of(request.sandbox_id)
            await lock.run(f"rm -f {CHANGES}")
            return ResumedWorkspace(
                sandbox=await _ref(sandbox),
                restored=restored,
                reapplied=reapplied.applied > 0,
                opened_at=_started_at(age),
            )

    @activity.defn
    @application_errors
    async def release_workspace(self, request: SandboxInput) -> None:
        """Kill every sandbox of the build but the preview's, and the one to keep.

        Raises:
            SandboxUnavailable: another attempt may succeed.
        """
        async with heartbeating():
            killed = await kill_all(self._sandboxes, request.build_id, Role.WORKSPACE, Role.GATE, keep=request.keep)
            if request.sandbox_id not in ("", request.keep, *killed):
                await self._sandboxes.kill(request.sandbox_id)
                killed.add(request.sandbox_id)
            async with self._sessions.begin() as session:
                await session.execute(
                    update(Build)
                    .where(Build.id == uuid.UUID(request.build_id), Build.sandbox_id.in_(killed))
                    .values(sandbox_id=None)
                )

    # ---- parts

    async def _adopt_or_create(
        self, build_id: uuid.UUID, preferred: str | None, *, fresh: bool = False
    ) -> tuple[Sandbox, timedelta]:
        """The build's one workspace sandbox, running: the preferred one, else the newest that there is, else a new one;
        and for how long it has run without a pause. What an attempt has left besides is killed.

        `fresh`: not the preferred one, which stays until there is another whose workspace is whole.
        """
        listed = {each.id: each for each in await self._sandboxes.list_of(str(build_id), Role.WORKSPACE)}
        first = [] if fresh or not preferred else [preferred]
        sandbox: Sandbox | None = None
        for candidate in [*first, *(each for each in listed if each != preferred)]:
            if sandbox is None:
                try:
                    sandbox = await self._sandboxes.resume(candidate)
                except SandboxGone:
                    _log.info("a sandbox is gone", build_id=str(build_id), sandbox_id=candidate)
            else:
                await self._sandboxes.kill(candidate)
        if sandbox is None:
            return await self._sandboxes.create(str(build_id), Role.WORKSPACE), timedelta()
        known = listed.get(sandbox.id)
        if known is None or known.state != "running":
            return sandbox, timedelta()  # a pause has ended now, and with it what ran before
        return sandbox, max(datetime.now(UTC) - known.started_at, timedelta())

    async def _changes(
        self, build_id: uuid.UUID, sandbox: Sandbox, snapshot: Snapshot | None, request: ResumeWorkspace
    ) -> list[str]:
        """What has to be restored, in sentences for the agent; empty when the workspace is as it should be."""
        if begun := await read_if_there(sandbox, CHANGES):
            return [str(change) for change in json.loads(begun)]
        if sandbox.id != request.sandbox_id or not await _exists(sandbox, _OPENED):
            lost = "The sandbox was replaced" if request.replace else "The sandbox was lost"
            if snapshot is None:
                return [f"{lost} before anything was saved: the workspace was empty again."]
            return [f"{lost}: the workspace was restored from {_named(build_id, snapshot)}."]
        async with self._sessions.begin() as session:
            last = await last_outcome_in(session, build_id, sandbox.id, snapshot)
        if last is not None:
            # The agent has worked here since the snapshot. That its files are as new as its work is seen by the journal
            # of its last call, which is in the same file system; then they differ rightly.
            if await _exists(sandbox, f"{JOURNAL}/calls/{last}/outcome"):
                return []
            was = "nothing" if snapshot is None else _named(build_id, snapshot)
            return [f"Work was lost while the sandbox was paused: the workspace was restored from {was}."]
        if snapshot is None or not (differences := await self._differences(sandbox, snapshot)):
            return []
        return [
            "Files had changed while the sandbox was paused: the workspace was restored from "
            f"{_named(build_id, snapshot)}.",
            *differences,
        ]

    async def _differences(self, sandbox: Sandbox, snapshot: Snapshot) -> list[str]:
        return compare(await stored_manifest(self._store, snapshot), await found_manifest(sandbox))

    async def _let_go_of(self, sandbox_id: str) -> None:
        """Kill a sandbox that has been replaced. Where it does not answer, the reaper comes for it."""
        try:
            await self._sandboxes.kill(sandbox_id)
        except SandboxUnavailable as error:
            _log.warning("a replaced sandbox could not be killed", sandbox_id=sandbox_id, error=str(error))

    async def _fill(self, sandbox: Sandbox, lock: WorkspaceLock, snapshot: Snapshot | None) -> None:
        """Restore the snapshot, if there is one, make the workspace a repository, and say that it is whole."""
        if snapshot is not None:
            await restore_snapshot(self._store, sandbox, snapshot, lock)
        empty = "" if snapshot is not None else f"rm -rf {WORKSPACE}"
        number = "" if snapshot is None else snapshot.number
        command = f"""
set -e
{empty}
mkdir -p {WORKSPACE}
cd {WORKSPACE}
[ -e .git ] || git init --quiet --initial-branch=main
git config user.name >/dev/null || git config user.name 'Cofounder agent'
git config user.email >/dev/null || git config user.email agent@cofounder.invalid
printf %s '{number}' >{_OPENED}
"""
        await lock.run(command)

    async def _known(self, build_id: uuid.UUID) -> str | None:
        """The sandbox that the build's row names."""
        async with self._sessions() as session:
            return await session.scalar(select(Build.sandbox_id).where(Build.id == build_id))


async def _claim_sandbox(session: AsyncSession, build_id: uuid.UUID, sandbox: Sandbox, before: str | None) -> None:
    """Name the sandbox in the build's row, if that still names the one of `before`, as this attempt began, or this one.

    Raises:
        StaleClaim: another attempt has named another one since.
    """
    named = Build.sandbox_id.is_not_distinct_from(before) | (Build.sandbox_id == sandbox.id)
    written = await session.scalar(
        update(Build).where(Build.id == build_id, named).values(sandbox_id=sandbox.id).returning(Build.id)
    )
    if written is None:
        raise StaleClaim(f"Another attempt has opened another sandbox than {sandbox.id}.")


async def _ref(sandbox: Sandbox) -> SandboxRef:
    return SandboxRef(sandbox_id=sandbox.id, boot=await sandbox.boot())


def _started_at(age: timedelta) -> datetime:
    """When something began that has this age now. The attempt's own time follows the workflow's, tests' included."""
    return activity.info().started_time - age


async def _reapply(sandbox: Sandbox, lock: WorkspaceLock, calls: Sequence[RecordedCall]) -> Reapplied:
    """Apply the edits again that fit, in one journaled step of this attempt."""
    edits = recovery.reapplicable(recovery.edits_to_reapply(calls))
    if not edits:
        return Reapplied()
    batch = {"holder": lock.token, "edits": [{"tool": edit.name, "input": edit.input} for edit in edits]}
    outcome = await sandbox.call(f"reapply-{uuid.uuid4().hex}", "reapply", batch, timeout_seconds=SMALL_SECONDS)
    if outcome.state != "done" or outcome.is_error:
        raise SandboxUnavailable(f"Edits could not be applied again in sandbox {sandbox.id}: {outcome.text}")
    answer = json.loads(outcome.text)
    if not answer["held"]:
        raise StaleClaim(f"A later attempt restores the workspace in sandbox {sandbox.id}.")
    return Reapplied(answer["applied"], answer["problem"])


def _named(build_id: uuid.UUID, snapshot: Snapshot) -> str:
    whose = "" if snapshot.build_id == build_id else " of the build before"
    return f"snapshot {snapshot.number}{whose}"


async def _position(session: AsyncSession, build_id: uuid.UUID) -> str:
    """Where the build goes on, for its founder: the last phase that it has ended, and the last turn."""
    phase = await session.scalar(
        select(Event.data)
        .where(Event.build_id == build_id, Event.type == EventType.PHASE_COMPLETED)
        .order_by(Event.id.desc())
        .limit(1)
    )
    turn = await session.scalar(
        select(func.max(Turn.number)).where(Turn.build_id == build_id, Turn.outcome.is_not(None))
    )
    after = f"phase {phase['phase']} ({phase['title']})" if phase else "the beginning"
    return f"{after}, turn {turn}" if turn else after


async def _exists(sandbox: Sandbox, path: str) -> bool:
    output = await sandbox.run(f"[ -e {path} ]", timeout_seconds=SMALL_SECONDS, cwd="/")
    return output.exit_code == 0


@asynccontextmanager
async def _again_when_gone() -> AsyncIterator[None]:
    """A sandbox that goes away in the middle is no end: the next attempt makes another."""
    try:
        yield
    except SandboxGone as error:
        raise SandboxUnavailable(f"The sandbox went away while it was opened. {error}") from error
