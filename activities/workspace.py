"""The build's sandbox: opening or adopting, pausing, resuming with verification, and releasing it."""

import json
import shlex
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import structlog
from temporalio import activity

from activities.runtime.crash_point import crash_point
from activities.runtime.errors import application_errors
from activities.runtime.heartbeat import heartbeating
from activities.runtime.workspace_lock import lock_workspace
from activities.sandbox.manifests import compare_manifests
from activities.sandbox.product import SMALL_SECONDS, kill_all, read_optional, stop_processes
from activities.sandbox.snapshot_store import CHANGES, restore_snapshot, stored_manifest
from activities.sandbox.step_output import keep_outputs
from activities.status import write_status
from clients.archive import found_manifest
from clients.object_store import ObjectStore
from clients.sandbox import Role, Sandbox, Sandboxes
from clients.sandbox_runner import JOURNAL, WORKSPACE
from clients.workspace_lock import WorkspaceLock
from db.builds import forget_sandboxes, handed_over_sandbox, record_sandbox, recorded_sandbox, require_open
from db.events import last_event_data
from db.feed import append_events
from db.gate_runs import outputs_of_last_run
from db.models import Snapshot
from db.recovery import mark_loss_reported
from db.session import Sessions
from db.snapshots import snapshot_to_continue
from db.tool_calls import calls_since, last_outcome_in, open_calls_since
from db.transaction import Transaction, transaction
from db.turns import last_answered_turn
from domain import recovery
from domain.errors import (
    RowsAreAhead,
    SandboxGone,
    SandboxOverloaded,
    SandboxRefused,
    SandboxUnavailable,
    StaleClaim,
)
from domain.events import PhaseCompletedEvent, ResumedEvent
from domain.payloads import (
    OpenedWorkspace,
    OpenWorkspace,
    ResumedWorkspace,
    ResumeWorkspace,
    SandboxInput,
    SandboxRef,
)
from domain.recovery import Reapplied, RecordedCall
from services.permits import Permits

_OPENED = f"{JOURNAL}/opened"
"""A file in the sandbox that says that the workspace is complete. Holds the number of the restored snapshot, if any."""

_FRESH = (
    "It is a fresh sandbox: no earlier process runs, and what was installed outside of the workspace, or in folders "
    "that git ignores, such as node_modules and .venv, has to be installed again."
)

_log = structlog.get_logger(__name__)


class WorkspaceActivities:
    """`open_workspace`, `pause_workspace`, `resume_workspace` and `release_workspace`."""

    def __init__(self, sessions: Sessions, sandboxes: Sandboxes, store: ObjectStore, permits: Permits) -> None:
        self._sessions = sessions
        self._sandboxes = sandboxes
        self._store = store
        self._permits = permits

    @activity.defn
    @application_errors
    async def open_workspace(self, request: OpenWorkspace) -> OpenedWorkspace:
        """Adopt the sandbox that an earlier attempt created for the build, or create one.

        A fresh one gets the build's own current snapshot. A build without one gets that of the project's last ready
        build, so that a second build continues the product.

        Raises:
            SandboxUnavailable, SnapshotFailed, StoreUnavailable: another attempt may succeed.
            NoPermit: no further sandbox may run now.
            NeedsPerson: the sandbox service or the store refuses.
            RowsAreAhead: the build has ended, or its row has a later status than the one to record.
        """
        build_id = uuid.UUID(request.build_id)
        async with heartbeating(), _retry_if_gone(), self._permits.running(request.build_id, Role.WORKSPACE):
            await crash_point("permit.taken")
            recorded = await self._recorded_sandbox(build_id)
            sandbox, age, _ = await self._adopt_or_create(build_id, recorded)
            await crash_point("workspace.made")
            restored_from = await read_optional(sandbox, _OPENED)
            if restored_from is None:
                # No attempt that was scheduled later can have taken a snapshot, or this one does not get the lock.
                async with transaction(self._sessions) as tx:
                    snapshot = await snapshot_to_continue(tx, build_id)
                await self._fill_first(sandbox, snapshot)
                restored_from = _number_of(snapshot)
            ref = await _ref(sandbox)
            async with transaction(self._sessions) as tx:
                await record_sandbox(tx, build_id, sandbox.id, recorded)
                if request.change is not None:
                    await write_status(tx, request.change)
            return OpenedWorkspace.sparse(
                sandbox=ref,
                restored_from=int(restored_from) if restored_from else None,
                opened_at=_started_at(age),
                recorded=request.change is not None,
            )

    @activity.defn
    @application_errors
    async def pause_workspace(self, request: SandboxInput) -> None:
        """End the processes that the agent has started, then pause the sandbox and give its permit back.

        A sandbox that is gone needs no pause. If it is paused already, the gate's sandbox is killed instead.

        Raises:
            SandboxUnavailable: another attempt may succeed.
            StaleClaim: the build has gone on since.
        """
        async with heartbeating():
            if request.is_paused:
                await kill_all(self._sandboxes, request.build_id, Role.GATE)
            else:
                await self._pause(request.sandbox_id)
            await crash_point("workspace.paused")
            if not request.keep_permit:
                await self._permits.give_back(request.build_id)

    @activity.defn
    @application_errors
    async def resume_workspace(self, request: ResumeWorkspace) -> ResumedWorkspace:
        """Resume the sandbox and verify its files against the current snapshot.

        If they differ, or the sandbox is gone, restore the snapshot and apply the edits that were made since again. The
        RESUMED event tells the founder and the agent what changed.

        A restore that an earlier attempt began starts over. It wipes the workspace, so no edit is applied twice.

        Raises:
            SandboxUnavailable, SnapshotFailed, StoreUnavailable: another attempt may succeed.
            NoPermit: no further sandbox may run now.
            StaleClaim: a later attempt holds the workspace.
            NeedsPerson: the sandbox service or the store refuses.
            RowsAreAhead: the build has ended, or another run of its workflow has opened another sandbox.
        """
        build_id = uuid.UUID(request.build_id)
        async with heartbeating(), _retry_if_gone(), self._permits.running(request.build_id, Role.WORKSPACE):
            recorded = await self._recorded_sandbox(build_id)
            if recorded not in (None, request.sandbox_id) and activity.info().attempt == 1:
                raise RowsAreAhead(f"The build works in sandbox {recorded} now.")
            sandbox, age, ran = await self._adopt_in_room(build_id, request)
            lock = await lock_workspace(sandbox)
            async with transaction(self._sessions) as tx:
                snapshot = await snapshot_to_continue(tx, build_id)
            await self._keep_outputs(build_id, sandbox)
            changes = await self._changes(build_id, sandbox, snapshot, request)
            restored, reapplied = bool(changes), Reapplied()
            if request.quiet and ran and not restored and request.lost_minutes is None:
                return ResumedWorkspace(sandbox=await _ref(sandbox), opened_at=_started_at(age), unchanged=True)
            if restored:
                quoted = shlex.quote(json.dumps(changes))
                await lock.run(f"printf %s {quoted} >{CHANGES} && rm -f {_OPENED}")
                await self._forget_outcomes(build_id, sandbox, lock, snapshot)
                await self._fill(sandbox, lock, snapshot)
                async with transaction(self._sessions) as tx:
                    calls = await calls_since(tx, build_id, snapshot)
                reapplied = await _reapply(sandbox, lock, calls)
                changes += recovery.describe_reapplied(calls, reapplied)
                if sandbox.id != request.sandbox_id:
                    changes.append(_FRESH)
            if request.lost_minutes is not None:
                changes.insert(0, _describe_loss(request.lost_minutes))
            async with transaction(self._sessions) as tx:
                await record_sandbox(tx, build_id, sandbox.id, recorded)
                await mark_loss_reported(tx, build_id)
                position = await _position(tx, build_id)
                event = ResumedEvent(reason=request.cause, continuing_from=position, changes=changes)
                await append_events(tx, build_id, [event])
            if sandbox.id != request.sandbox_id:
                await self._kill_replaced(request.sandbox_id)
            if restored:
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
        """Kill the build's sandboxes, except the preview's and the one to keep, to which the permit passes.

        A build that is ready has handed its gate's sandbox to its preview, even if this run does not know it.

        Raises:
            SandboxUnavailable: another attempt may succeed.
        """
        async with heartbeating():
            async with transaction(self._sessions) as tx:
                keep = request.keep or await handed_over_sandbox(tx, uuid.UUID(request.build_id))
            killed = await kill_all(self._sandboxes, request.build_id, Role.WORKSPACE, Role.GATE, keep=keep)
            if request.sandbox_id not in ("", keep, *killed):
                await self._sandboxes.kill(request.sandbox_id)
                killed.add(request.sandbox_id)
            async with transaction(self._sessions) as tx:
                await forget_sandboxes(tx, uuid.UUID(request.build_id), killed)
            if request.keep is None:
                await self._permits.give_back(request.build_id)

    # ---- parts

    async def _pause(self, sandbox_id: str) -> None:
        try:
            sandbox = await self._sandboxes.connect(sandbox_id)
            await stop_processes(await lock_workspace(sandbox))
        except SandboxGone:
            return
        except SandboxOverloaded:
            _log.warning("a sandbox is paused with all its processes: it can start none to end them", id=sandbox_id)
        await self._sandboxes.pause(sandbox_id)

    async def _adopt_in_room(self, build_id: uuid.UUID, request: ResumeWorkspace) -> tuple[Sandbox, timedelta, bool]:
        """`_adopt_or_create`; after a reset at the gate, the lost run's gate has left a sandbox in its room."""
        try:
            return await self._adopt_or_create(build_id, request.sandbox_id, fresh=request.replace)
        except SandboxRefused:
            if not request.quiet or not await kill_all(self._sandboxes, request.build_id, Role.GATE):
                raise
            return await self._adopt_or_create(build_id, request.sandbox_id, fresh=request.replace)

    async def _adopt_or_create(
        self, build_id: uuid.UUID, preferred: str | None, *, fresh: bool = False
    ) -> tuple[Sandbox, timedelta, bool]:
        """The build's one workspace sandbox, running; how long it has run without a pause; and whether it ran before.

        It is the preferred one if that still exists, else the newest of the build's, else a new one. Others that
        attempts have left are killed.

        `fresh`: do not take the preferred one. It stays until another has a complete workspace, but paused: a build has
        one permit.
        """
        if fresh and preferred:
            await self._pause_replaced(preferred)
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
            return await self._sandboxes.create(str(build_id), Role.WORKSPACE), timedelta(), False
        seen = listed.get(sandbox.id)
        if seen is None or seen.state != "running":
            return sandbox, timedelta(), False  # it was paused until now
        return sandbox, max(datetime.now(UTC) - seen.started_at, timedelta()), True

    async def _changes(
        self, build_id: uuid.UUID, sandbox: Sandbox, snapshot: Snapshot | None, request: ResumeWorkspace
    ) -> list[str]:
        """Why the workspace has to be restored, in sentences for the agent; empty if it is as it should be."""
        if unfinished := await read_optional(sandbox, CHANGES):
            return [str(change) for change in json.loads(unfinished)]
        if sandbox.id != request.sandbox_id or not await sandbox.exists(_OPENED):
            event = "The sandbox was replaced" if request.replace else "The sandbox was lost"
            if snapshot is None:
                return [f"{event} before anything was saved: the workspace was empty again."]
            return [f"{event}: the workspace was restored from {_describe(build_id, snapshot)}."]
        async with transaction(self._sessions) as tx:
            last = await last_outcome_in(tx, build_id, sandbox.id, snapshot)
        if last is not None:
            # The agent has worked here since the snapshot, so the files rightly differ from it. The journal of its last
            # call is in the same file system: if it is there, the files are as new as the work.
            if await sandbox.exists(f"{JOURNAL}/calls/{last}/outcome"):
                return []
            source = "nothing" if snapshot is None else _describe(build_id, snapshot)
            return [f"Work was lost while the sandbox was paused: the workspace was restored from {source}."]
        if snapshot is None or not (differences := await self._differences(sandbox, snapshot)):
            return []
        return [
            "Files had changed while the sandbox was paused: the workspace was restored from "
            f"{_describe(build_id, snapshot)}.",
            *differences,
        ]

    async def _forget_outcomes(
        self, build_id: uuid.UUID, sandbox: Sandbox, lock: WorkspaceLock, snapshot: Snapshot | None
    ) -> None:
        """Forget the outcomes of calls that the rows have no result of: the restore undoes what they changed.

        A call that was begun in a time that the database lost runs again. What became of one that the rows know as
        begun is unknown from now on. Without this, the sandbox would answer with their old outcomes.
        """
        async with transaction(self._sessions) as tx:
            calls = await open_calls_since(tx, build_id, snapshot)
        if not calls:
            return
        listed = await sandbox.run(f"ls {JOURNAL}/calls 2>/dev/null || true", timeout_seconds=SMALL_SECONDS, cwd="/")
        for call_id in sorted(calls.keys() & listed.stdout.split()):
            await sandbox.end_call(call_id)
            folder = f"{JOURNAL}/calls/{shlex.quote(call_id)}"
            await lock.run(f"rm -f {folder}/outcome {folder}/keeper" if calls[call_id] else f"rm -rf {folder}")

    async def _keep_outputs(self, build_id: uuid.UUID, sandbox: Sandbox) -> None:
        """Write what the last gate's findings could quote only in part, so that the agent can read it."""
        async with transaction(self._sessions) as tx:
            number, outputs = await outputs_of_last_run(tx, build_id)
        await keep_outputs(sandbox, number, outputs)

    async def _differences(self, sandbox: Sandbox, snapshot: Snapshot) -> list[str]:
        stored = await stored_manifest(self._store, snapshot)
        return await compare_manifests(stored, await found_manifest(sandbox))

    async def _pause_replaced(self, sandbox_id: str) -> None:
        """Pause a sandbox that is to be replaced. If that fails, it runs beside the other one for a short time."""
        try:
            await self._sandboxes.pause(sandbox_id)
        except SandboxUnavailable as error:
            _log.warning("a sandbox to be replaced could not be paused", sandbox_id=sandbox_id, error=error)

    async def _kill_replaced(self, sandbox_id: str) -> None:
        """Kill a sandbox that has been replaced. If the service fails, the reaper kills it later."""
        try:
            await self._sandboxes.kill(sandbox_id)
        except SandboxUnavailable as error:
            _log.warning("a replaced sandbox could not be killed", sandbox_id=sandbox_id, error=error)

    async def _fill_first(self, sandbox: Sandbox, snapshot: Snapshot | None) -> None:
        """Take the lock and fill the workspace; in one request if there is no snapshot."""
        if snapshot is None:
            await lock_workspace(sandbox, _complete(None))
        else:
            await self._fill(sandbox, await lock_workspace(sandbox), snapshot)

    async def _fill(self, sandbox: Sandbox, lock: WorkspaceLock, snapshot: Snapshot | None) -> None:
        """Restore the snapshot, if there is one, make the workspace a git repository, and mark it as complete."""
        if snapshot is not None:
            await restore_snapshot(self._store, sandbox, snapshot, lock)
        await lock.run(_complete(snapshot))

    async def _recorded_sandbox(self, build_id: uuid.UUID) -> str | None:
        """The sandbox that the build's row names.

        Raises:
            RowsAreAhead: the build has ended.
        """
        async with transaction(self._sessions) as tx:
            await require_open(tx, build_id)
            return await recorded_sandbox(tx, build_id)


def _complete(snapshot: Snapshot | None) -> str:
    """The command that makes the workspace a git repository and marks it as complete. Without a snapshot, the workspace
    is emptied before."""
    empty = "" if snapshot is not None else f"rm -rf {WORKSPACE}"
    return f"""
set -e
{empty}
mkdir -p {WORKSPACE}
cd {WORKSPACE}
[ -e .git ] || git init --quiet --initial-branch=main
printf %s '{_number_of(snapshot)}' >{_OPENED}
"""


def _number_of(snapshot: Snapshot | None) -> str:
    """What the file `_OPENED` holds."""
    return "" if snapshot is None else str(snapshot.number)


async def _ref(sandbox: Sandbox) -> SandboxRef:
    return SandboxRef(sandbox_id=sandbox.id, boot=await sandbox.boot())


def _started_at(age: timedelta) -> datetime:
    """When something of this age started, by the attempt's own clock: it follows the workflow's, also in tests."""
    return activity.info().started_time - age


async def _reapply(sandbox: Sandbox, lock: WorkspaceLock, calls: Sequence[RecordedCall]) -> Reapplied:
    """Apply the edits that can be applied again, in one journaled step of this attempt."""
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


def _describe(build_id: uuid.UUID, snapshot: Snapshot) -> str:
    owner = "" if snapshot.build_id == build_id else " of an earlier build"
    return f"snapshot {snapshot.number}{owner}"


def _describe_loss(minutes: int) -> str:
    """Say to founder and agent that part of the build's record is gone."""
    part = f"The record of the last {minutes} minutes" if minutes > 1 else "A part of the record"
    return (
        f"{part} was lost with a restore of Cofounder's database: the agent does not remember what it did then. The "
        "workspace may hold changes from that time, and commands of that time have had their effects. Look at git log, "
        "git status and the files before going on."
    )


async def _position(tx: Transaction, build_id: uuid.UUID) -> str:
    """Where the build continues, for its founder: after its last completed phase and its last turn."""
    data = await last_event_data(tx, build_id, PhaseCompletedEvent.type)
    turn = await last_answered_turn(tx, build_id)
    phase = PhaseCompletedEvent.model_validate(data) if data else None
    after = f"phase {phase.phase} ({phase.title})" if phase else "the beginning"
    return f"{after}, turn {turn}" if turn else after


@asynccontextmanager
async def _retry_if_gone() -> AsyncIterator[None]:
    """Make the loss of the sandbox an error that is retried: the next attempt creates another."""
    try:
        yield
    except SandboxGone as error:
        raise SandboxUnavailable(f"The sandbox went away while it was opened. {error}") from error
