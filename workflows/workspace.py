"""A build's sandbox as its workflow sees it: snapshot, pause, resume verified, let go."""

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.snapshot import SnapshotActivities
    from activities.workspace import WorkspaceActivities
    from domain.payloads import (
        LoopState,
        OpenWorkspace,
        ResumeWorkspace,
        SandboxInput,
        SandboxRef,
        TakeSnapshot,
        TurnNote,
    )

from workflows import policies
from workflows.failures import reason_of


class Workspace:
    """The sandbox that the state names, and what is done to it as a whole. Each method is one or two activities."""

    def __init__(self, build_id: str, state: LoopState) -> None:
        self._build_id = build_id
        self._state = state

    @property
    def is_open(self) -> bool:
        """Whether a sandbox has been opened for this build."""
        return self._state.sandbox is not None

    @property
    def sandbox(self) -> SandboxRef:
        """The sandbox; only after `open`."""
        assert self._state.sandbox is not None, "the workspace is opened before it is used"
        return self._state.sandbox

    async def open(self) -> None:
        """Open the sandbox: adopted, or created and restored from the project's last snapshot."""
        opened = await workflow.execute_activity_method(
            WorkspaceActivities.open_workspace,
            OpenWorkspace(build_id=self._build_id),
            **policies.SANDBOX,
            summary="open the sandbox",
        )
        self._state.sandbox = opened.sandbox

    async def snapshot(
        self,
        reason: str,
        options: policies.Options = policies.SNAPSHOT,
        *,
        phase: int | None = None,
        commit: str | None = None,
    ) -> None:
        """Take a snapshot under the next number, assigned before archiving: a stalled older one never becomes current.

        A failure is told in the feed and raised.
        """
        self._state.snapshots += 1
        ends_phase = {"phase": phase, "commit": commit} if phase is not None else {}
        asked = TakeSnapshot(
            build_id=self._build_id,
            sandbox_id=self.sandbox.sandbox_id,
            number=self._state.snapshots,
            reason=reason,
            **ends_phase,
        )
        try:
            await workflow.execute_activity_method(
                SnapshotActivities.snapshot_workspace, asked, **options, summary=f"snapshot: {reason}"
            )
        except ActivityError as error:
            if not is_cancelled_exception(error):
                await workflow.execute_activity_method(
                    SnapshotActivities.note_snapshot_failure,
                    asked.model_copy(update={"error": reason_of(error)}),
                    **policies.DATABASE,
                    summary="snapshot failed",
                )
            raise

    async def pause(self) -> None:
        """End the sandbox's processes and pause it: it costs nothing from then on."""
        await workflow.execute_activity_method(
            WorkspaceActivities.pause_workspace, self._named(), **policies.SANDBOX, summary="pause the sandbox"
        )

    async def resume(self, cause: str) -> None:
        """Resume the sandbox with its files verified against the snapshot; the agent is told in its next turn."""
        resumed = await workflow.execute_activity_method(
            WorkspaceActivities.resume_workspace,
            ResumeWorkspace(build_id=self._build_id, sandbox_id=self.sandbox.sandbox_id, cause=cause),
            **policies.SANDBOX,
            summary="verify the workspace",
        )
        self._state.sandbox = resumed.sandbox
        # Also where it is there already: that one may be part of a message that has been sent.
        self._state.notes.append(TurnNote.RESUMED)

    async def release(self, keep: str | None = None) -> None:
        """Let go of every sandbox of the build, except the one that its preview keeps."""
        named = self._named() if keep is None else SandboxInput(build_id=self._build_id, sandbox_id="", keep=keep)
        await workflow.execute_activity_method(
            WorkspaceActivities.release_workspace, named, **policies.LETTING_GO, summary="let go of the sandbox"
        )

    def _named(self) -> SandboxInput:
        sandbox = self._state.sandbox
        return SandboxInput(build_id=self._build_id, sandbox_id=sandbox.sandbox_id if sandbox else "")
