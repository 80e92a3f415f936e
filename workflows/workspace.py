"""A build's sandbox as its workflow sees it: open, snapshot, pause, resume and verify, replace, release."""

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.snapshot import SnapshotActivities
    from activities.workspace import WorkspaceActivities
    from domain.lifetime import is_near_its_end
    from domain.notes import TurnNote
    from domain.payloads import (
        AnsweredTurn,
        LoopState,
        OpenWorkspace,
        ResumeWorkspace,
        SandboxInput,
        SandboxRef,
        SnapshotReason,
        StatusChange,
        TakeSnapshot,
    )
    from domain.worker_roles import WorkerRole

from workflows import patches, policies
from workflows.failures import end_if_cancelled, outage_of, reason_of, rows_moved, sandbox_problem
from workflows.queues import on_queue_of


class Workspace:
    """The sandbox in the build's state. Each method is one or two activities."""

    def __init__(self, build_id: str, state: LoopState) -> None:
        self._build_id = build_id
        self._state = state
        self._expected: str | None = None
        """The sandbox that an earlier run has opened and this one has not verified; empty if the rows name none."""
        self._lost_minutes: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether a sandbox has been opened for this build."""
        return self._state.sandbox is not None

    @property
    def is_unverified(self) -> bool:
        """Whether an earlier run has opened the workspace, so that it has to be verified before it is used."""
        return self._expected is not None

    @property
    def sandbox(self) -> SandboxRef:
        """The sandbox; only after `open`."""
        assert self._state.sandbox is not None, "the workspace is opened before it is used"
        return self._state.sandbox

    def sandbox_of(self, turn: AnsweredTurn | None) -> SandboxRef:
        """The sandbox that the turn's plan or gate began with, perhaps in an earlier run."""
        if turn is None:
            return self.sandbox
        if turn.sandbox is None:
            turn.sandbox = self.sandbox
        return turn.sandbox

    def expect(self, sandbox_id: str | None, *, has_turns: bool, is_asleep: bool, lost_minutes: int | None) -> None:
        """Take up the workspace of an earlier run.

        Args:
            sandbox_id: the sandbox that the build's row names.
            has_turns: the agent has begun to work. Otherwise the sandbox is opened like a new one.
            is_asleep: the sandbox is paused, and the last snapshot has everything that is in it.
            lost_minutes: how much of the build's record is gone, for the agent; 0 if that is unknown.
        """
        self._lost_minutes = lost_minutes
        self._expected = sandbox_id or "" if has_turns else None
        self._state.sandbox = SandboxRef(sandbox_id=sandbox_id, boot="") if sandbox_id and has_turns else None
        self._state.paused = self._state.saved = is_asleep and self._state.sandbox is not None

    @property
    def may_be_left(self) -> bool:
        """Whether a run may continue as new before the workspace is verified: the next one resumes its sandbox."""
        return not self.is_unverified or (self.is_open and self._lost_minutes is None)

    async def recover(self) -> None:
        """Verify the workspace of an earlier run. The agent is told if it has changed."""
        request = ResumeWorkspace(
            build_id=self._build_id,
            sandbox_id=self._expected or "",
            cause="its workflow was started again",
            quiet=True,
        )
        await self._resume(request)

    @property
    def is_paused(self) -> bool:
        """Whether its sandbox is paused, and only `resume` and `replace` may use it."""
        return self._state.paused and workflow.patched(patches.PERMITS.id)

    @property
    def is_saved(self) -> bool:
        """Whether it is paused, and the last snapshot has everything that is in it."""
        state = self._state
        if not self.is_paused or not state.saved:
            return False
        return not (state.changed and workflow.patched(patches.SAVES.id))

    def note_change(self) -> None:
        """Note that a call may change the workspace from now on."""
        self._state.changed = True

    async def open(self, change: StatusChange | None) -> bool:
        """Open the sandbox: adopted, or created and restored from the project's last snapshot.

        Returns:
            Whether the change of the status was recorded with it.
        """
        opened = await workflow.execute_activity_method(
            WorkspaceActivities.open_workspace,
            OpenWorkspace.sparse(build_id=self._build_id, change=change),
            **self._moving(policies.SANDBOX),
            summary="open the sandbox",
        )
        self._state.sandbox, self._state.sandbox_opened_at = opened.sandbox, opened.opened_at
        return opened.recorded

    async def snapshot(
        self,
        reason: SnapshotReason,
        options: policies.Options = policies.SNAPSHOT,
        *,
        phase: int | None = None,
        commit: str | None = None,
    ) -> None:
        """Take a snapshot under the next number, assigned before archiving: a stalled older one never becomes current.

        A failure is reported in the feed and raised.
        """
        self._state.snapshots += 1
        self._state.saved = False
        request = TakeSnapshot.sparse(
            build_id=self._build_id,
            sandbox_id=self.sandbox.sandbox_id,
            number=self._state.snapshots,
            reason=reason,
            phase=phase,
            commit=commit,
        )
        try:
            taken = await workflow.execute_activity_method(
                SnapshotActivities.snapshot_workspace,
                request,
                **self._archiving(reason, options),
                summary=f"snapshot: {reason}",
            )
        except ActivityError as error:
            if not is_cancelled_exception(error) and rows_moved(error) is None:
                await workflow.execute_activity_method(
                    SnapshotActivities.note_snapshot_failure,
                    request.model_copy(update={"error": reason_of(error)}),
                    **policies.DATABASE,
                    summary="snapshot failed",
                )
            raise
        if taken.rewritten:
            self._state.notes.append(TurnNote.HISTORY_OVERWRITTEN)
        self._state.saved, self._state.changed = True, False

    async def pause(self, options: policies.Options = policies.SANDBOX, *, keep_permit: bool = False) -> None:
        """End the sandbox's processes and pause it; from then on it costs nothing.

        `keep_permit`: the gate's sandbox is to use its permit. Otherwise the permit is given back, and the gate's
        sandbox killed if there is one.
        """
        request = SandboxInput.sparse(
            build_id=self._build_id, sandbox_id=self._id(), keep_permit=keep_permit, is_paused=self._state.paused
        )
        await workflow.execute_activity_method(
            WorkspaceActivities.pause_workspace, request, **options, summary="pause the sandbox"
        )
        self._state.paused = True

    async def resume(self, cause: str, *, patient: bool = False) -> None:
        """Resume the sandbox and verify its files against the snapshot; the agent is told in its next turn.

        A sandbox that can't be resumed is replaced; if `patient`, not if the sandbox service does not answer.
        """
        try:
            await self._resume(ResumeWorkspace(build_id=self._build_id, sandbox_id=self._id(), cause=cause))
        except ActivityError as error:
            end_if_cancelled()
            if patient and outage_of(error) is not None and workflow.patched(patches.OUTAGES.id):
                raise
            if sandbox_problem(error) is None or not workflow.patched(patches.REPLACES.id):
                raise
            await self.replace(cause)

    async def replace(self, cause: str) -> None:
        """Restore the workspace into a fresh sandbox and release this one; the agent is told in its next turn."""
        request = ResumeWorkspace(build_id=self._build_id, sandbox_id=self._id(), cause=cause, replace=True)
        await self._resume(request)

    async def replace_in_time(self) -> None:
        """Replace the sandbox before the provider ends it; nothing is lost but its processes."""
        state, context = self._state, self._state.context
        if context is None or not is_near_its_end(
            state.sandbox_opened_at, workflow.now(), context.sandbox_max_seconds, context.tool_timeout_max_seconds
        ):
            return
        await self.snapshot(SnapshotReason.REPLACE)
        await self.replace("the sandbox was near the end of the time that its provider gives it")

    async def _resume(self, request: ResumeWorkspace) -> None:
        if self._lost_minutes is not None:
            request = request.model_copy(update={"lost_minutes": self._lost_minutes})
        resumed = await workflow.execute_activity_method(
            WorkspaceActivities.resume_workspace,
            request,
            **self._moving(policies.SANDBOX),
            summary="verify the workspace",
        )
        self._state.sandbox, self._state.sandbox_opened_at = resumed.sandbox, resumed.opened_at
        self._expected = self._lost_minutes = None
        self._state.paused = self._state.saved = False
        if resumed.unchanged:
            return
        # Even if the note is there already: that one may be part of a message that was sent.
        self._state.notes.append(TurnNote.RESUMED)
        if resumed.reapplied:
            # So that these edits need not be applied again later, perhaps after edits that conflict with them.
            try:
                await self.snapshot(SnapshotReason.RESTORED, policies.SNAPSHOT_IF_POSSIBLE)
            except ActivityError:
                end_if_cancelled()

    async def release(self, keep: str | None = None, options: policies.Options = policies.RELEASE) -> None:
        """Release every sandbox of the build, except the one that its preview keeps."""
        target = self._target() if keep is None else SandboxInput(build_id=self._build_id, sandbox_id="", keep=keep)
        await workflow.execute_activity_method(
            WorkspaceActivities.release_workspace, target, **options, summary="release the sandbox"
        )

    def _moving(self, options: policies.Options) -> policies.Options:
        """The options for an activity that moves archives."""
        return on_queue_of(WorkerRole.ARCHIVE, self._state, options)

    def _archiving(self, reason: SnapshotReason, options: policies.Options) -> policies.Options:
        """The options for a snapshot. One of a build that rests comes last in the queue of its role."""
        moving = self._moving(options)
        if reason in (SnapshotReason.SLEEP, SnapshotReason.WAIT) and "task_queue" in moving:
            return {**moving, "priority": policies.OF_REST}
        return moving

    def _id(self) -> str:
        return self.sandbox.sandbox_id

    def _target(self) -> SandboxInput:
        sandbox = self._state.sandbox
        return SandboxInput(build_id=self._build_id, sandbox_id=sandbox.sandbox_id if sandbox else "")
