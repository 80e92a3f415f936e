"""The build's sandbox: opened or adopted, paused, resumed and verified, and let go of."""

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity

from activities.edge import edge
from activities.heartbeat import heartbeating
from activities.product import SMALL_SECONDS, kill_all, read_if_there, stop_processes
from activities.snapshot import CHANGES, restore_snapshot, stored_manifest
from clients.archive import found_manifest
from clients.object_store import ObjectStore
from clients.sandbox import Role, Sandbox, Sandboxes
from clients.sandbox_runner import JOURNAL, WORKSPACE
from db.feed import append_events
from db.models import Build, Event, Snapshot, ToolCall, Turn
from db.session import Sessions
from db.snapshots import current_snapshot, snapshot_to_continue
from domain.errors import SandboxGone, SandboxUnavailable
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
from domain.tools import TOOLS

_OPENED = f"{JOURNAL}/opened"
"""In the sandbox: the workspace is whole. Holds the number of the snapshot that it was restored from, if any."""

_log = structlog.get_logger(__name__)


class WorkspaceActivities:
    """`open_workspace`, `pause_workspace`, `resume_workspace` and `release_workspace`."""

    def __init__(self, sessions: Sessions, sandboxes: Sandboxes, store: ObjectStore) -> None:
        self._sessions = sessions
        self._sandboxes = sandboxes
        self._store = store

    @activity.defn
    @edge
    async def open_workspace(self, given: OpenWorkspace) -> OpenedWorkspace:
        """Adopt the build's sandbox that an earlier attempt made, or create one. A fresh one is given the build's own
        current snapshot, or that of the project's last ready build, so that a second build continues the product.

        Raises:
            SandboxUnavailable, SnapshotFailed, StoreUnavailable: another attempt may succeed.
            NeedsPerson: the sandbox service or the store refuses.
        """
        build_id = uuid.UUID(given.build_id)
        async with heartbeating(), _again_when_gone():
            sandbox = await self._adopt_or_create(build_id, None)
            if not await _exists(sandbox, _OPENED):
                async with self._sessions.begin() as session:
                    snapshot = await snapshot_to_continue(session, build_id)
                await self._fill(sandbox, snapshot)
            await self._remember(build_id, sandbox)
            restored_from = await read_if_there(sandbox, _OPENED)
            return OpenedWorkspace(
                sandbox=await _ref(sandbox), restored_from=int(restored_from) if restored_from else None
            )

    @activity.defn
    @edge
    async def pause_workspace(self, given: SandboxInput) -> None:
        """End the processes that the agent has started, then pause the sandbox. One that is gone needs no pause.

        Raises:
            SandboxUnavailable: another attempt may succeed.
        """
        async with heartbeating():
            try:
                sandbox = await self._sandboxes.connect(given.sandbox_id)
                await stop_processes(sandbox)
            except SandboxGone:
                return
            await self._sandboxes.pause(given.sandbox_id)

    @activity.defn
    @edge
    async def resume_workspace(self, given: ResumeWorkspace) -> ResumedWorkspace:
        """Resume the sandbox and verify its files against the current snapshot; where they differ, or where the
        sandbox is gone, restore the snapshot. The RESUMED event tells the founder and the agent what changed.

        Raises:
            SandboxUnavailable, SnapshotFailed, StoreUnavailable: another attempt may succeed.
            NeedsPerson: the sandbox service or the store refuses.
        """
        build_id = uuid.UUID(given.build_id)
        async with heartbeating(), _again_when_gone():
            sandbox = await self._adopt_or_create(build_id, given.sandbox_id)
            async with self._sessions.begin() as session:
                snapshot = await current_snapshot(session, build_id)
            changes = await self._changes(build_id, sandbox, snapshot, given)
            restored = bool(changes)
            if restored:
                await sandbox.write(CHANGES, json.dumps(changes))
                await sandbox.run(f"rm -f {_OPENED}", timeout_seconds=SMALL_SECONDS, cwd="/")
                await self._fill(sandbox, snapshot)
            async with self._sessions.begin() as session:
                data = {
                    "reason": given.cause,
                    "continuing_from": await _position(session, build_id),
                    "changes": changes,
                }
                await append_events(session, build_id, [NewEvent(EventType.RESUMED, data)])
            await self._remember(build_id, sandbox)
            await sandbox.run(f"rm -f {CHANGES}", timeout_seconds=SMALL_SECONDS, cwd="/")
            return ResumedWorkspace(sandbox=await _ref(sandbox), restored=restored)

    @activity.defn
    @edge
    async def release_workspace(self, given: SandboxInput) -> None:
        """Kill every sandbox of the build but the preview's, and the one to keep.

        Raises:
            SandboxUnavailable: another attempt may succeed.
        """
        async with heartbeating():
            killed = await kill_all(self._sandboxes, given.build_id, Role.WORKSPACE, Role.GATE, keep=given.keep)
            if given.sandbox_id not in ("", given.keep, *killed):
                await self._sandboxes.kill(given.sandbox_id)
                killed.add(given.sandbox_id)
            async with self._sessions.begin() as session:
                await session.execute(
                    update(Build)
                    .where(Build.id == uuid.UUID(given.build_id), Build.sandbox_id.in_(killed))
                    .values(sandbox_id=None)
                )

    # ---- parts

    async def _adopt_or_create(self, build_id: uuid.UUID, preferred: str | None) -> Sandbox:
        """The build's one workspace sandbox, running: the preferred one, else the newest that there is, else a new one.
        What an attempt has left besides is killed."""
        found = await self._sandboxes.find(str(build_id), Role.WORKSPACE)
        if preferred is None:
            async with self._sessions.begin() as session:
                preferred = await session.scalar(select(Build.sandbox_id).where(Build.id == build_id))
        candidates = ([preferred] if preferred else []) + [each for each in found if each != preferred]
        sandbox: Sandbox | None = None
        for candidate in candidates:
            if sandbox is None:
                try:
                    sandbox = await self._sandboxes.resume(candidate)
                except SandboxGone:
                    _log.info("a sandbox is gone", build_id=str(build_id), sandbox_id=candidate)
            else:
                await self._sandboxes.kill(candidate)
        return sandbox or await self._sandboxes.create(str(build_id), Role.WORKSPACE)

    async def _changes(
        self, build_id: uuid.UUID, sandbox: Sandbox, snapshot: Snapshot | None, given: ResumeWorkspace
    ) -> list[str]:
        """What has to be restored, in sentences for the agent; empty when the workspace is as it should be."""
        if begun := await read_if_there(sandbox, CHANGES):
            return [str(change) for change in json.loads(begun)]
        if sandbox.id != given.sandbox_id or not await _exists(sandbox, _OPENED):
            if snapshot is None:
                return ["The sandbox was lost before anything was saved: the workspace is empty again."]
            return [f"The sandbox was lost: the workspace is what it was at snapshot {snapshot.number}."]
        if snapshot is None or await self._is_ahead(build_id, sandbox, snapshot):
            return []
        differences = compare(await stored_manifest(self._store, snapshot), await found_manifest(sandbox))
        if not differences:
            return []
        return [
            f"Files had changed while the sandbox was paused and are what they were at snapshot {snapshot.number}.",
            *differences,
        ]

    async def _is_ahead(self, build_id: uuid.UUID, sandbox: Sandbox, snapshot: Snapshot) -> bool:
        """Whether the agent has worked in this sandbox since the snapshot, and the work is still there.

        Then the workspace differs rightly, and restoring would lose work. That its files are as new as the work is
        seen by the journal of the last call, which is in the same file system.
        """
        mutating = [name for name, tool in TOOLS.items() if tool.mutating]
        async with self._sessions.begin() as session:
            last = await session.scalar(
                select(ToolCall.tool_use_id)
                .where(
                    ToolCall.build_id == build_id,
                    ToolCall.sandbox_id == sandbox.id,
                    ToolCall.name.in_(mutating),
                    ToolCall.state == "done",
                    ToolCall.intended_at > snapshot.created_at,
                )
                .order_by(ToolCall.turn.desc(), ToolCall.position.desc())
                .limit(1)
            )
        return last is not None and await _exists(sandbox, f"{JOURNAL}/calls/{last}/outcome")

    async def _fill(self, sandbox: Sandbox, snapshot: Snapshot | None) -> None:
        """Restore the snapshot, if there is one, make the workspace a repository, and say that it is whole."""
        if snapshot is not None:
            await restore_snapshot(self._store, sandbox, snapshot)
        command = f"""
set -e
mkdir -p {WORKSPACE}
cd {WORKSPACE}
[ -e .git ] || git init --quiet --initial-branch=main
git config user.name >/dev/null || git config user.name 'Cofounder agent'
git config user.email >/dev/null || git config user.email agent@cofounder.invalid
"""
        output = await sandbox.run(command, timeout_seconds=SMALL_SECONDS, cwd="/")
        if output.exit_code != 0:
            raise SandboxUnavailable(f"The workspace could not be made in sandbox {sandbox.id}: {output.stderr[-500:]}")
        await sandbox.write(_OPENED, str(snapshot.number) if snapshot is not None else "")

    async def _remember(self, build_id: uuid.UUID, sandbox: Sandbox) -> None:
        async with self._sessions.begin() as session:
            await session.execute(update(Build).where(Build.id == build_id).values(sandbox_id=sandbox.id))


async def _ref(sandbox: Sandbox) -> SandboxRef:
    return SandboxRef(sandbox_id=sandbox.id, boot=await sandbox.boot())


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
