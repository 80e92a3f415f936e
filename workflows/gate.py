"""Checks a product before a build becomes ready. Steps that come before the evidence gate belong here as well."""

from enum import Enum, auto

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.gate import GateActivities
    from domain.notes import TurnNote
    from domain.payloads import GateResult, LoopState, RunGate, SnapshotReason, TurnStep
    from domain.status import Status
    from domain.worker_roles import WorkerRole

from workflows import patches, policies
from workflows.projection import Projection
from workflows.queues import on_queue_of
from workflows.waiting import Waiting
from workflows.workspace import Workspace


class GateOutcome(Enum):
    """How a check of the product ended."""

    PASSED = auto()
    FAILED = auto()
    """The agent gets the findings."""
    PENDING_INPUT = auto()
    """The founder has sent input meanwhile, which comes first."""
    SANDBOX_LOST = auto()
    """The build's sandbox was lost before the gate: the agent first has to see what it has lost."""


class EvidenceGate:
    """The gate as the workflow sees it: snapshot the workspace, check the snapshot, tell the agent what is wrong."""

    def __init__(
        self, build_id: str, state: LoopState, projection: Projection, workspace: Workspace, waiting: Waiting
    ) -> None:
        self._build_id = build_id
        self._state = state
        self._projection = projection
        self._workspace = workspace
        self._waiting = waiting
        self._evidence: GateResult | None = None

    @property
    def evidence(self) -> GateResult:
        """The result of the check that passed; only after `PASSED`."""
        assert self._evidence is not None, "the product passes the gate first"
        return self._evidence

    async def check(self) -> GateOutcome:
        """Snapshot the workspace and check the product in a fresh sandbox. If it does not pass, the agent works on.

        Nothing passes while the founder has pending input.
        """
        state, turn = self._state, self._state.answered
        if turn is not None and turn.step is TurnStep.EVIDENCE:
            return await self._judge(finishing=turn.finishing, wants_plan=turn.wants_plan)
        finishing, state.finish = state.finish or (turn is not None and turn.finishing), False
        if turn is not None:
            turn.finishing = finishing
        if not self._waiting.goes_on_waiting or not workflow.patched(patches.GATE_WAITS_ON.id):
            await self._projection.become(Status.CHECKS)
        sandbox = self._workspace.sandbox_of(turn)
        await self._waiting.retry_with_help(lambda: self._workspace.snapshot(SnapshotReason.GATE), in_sandbox=True)
        if self._workspace.sandbox != sandbox and workflow.patched(patches.REPLACES.id):
            self._keep_finish(finishing)
            await self._return_to_work()
            return GateOutcome.SANDBOX_LOST
        state.gates += 1
        wants_plan = state.loaded_context.wants_plan and not finishing
        if turn is not None:
            turn.step, turn.wants_plan = TurnStep.EVIDENCE, wants_plan
        return await self._judge(finishing=finishing, wants_plan=wants_plan)

    async def _judge(self, *, finishing: bool, wants_plan: bool) -> GateOutcome:
        """Check the product that was snapshotted last."""
        state = self._state
        result = await self._waiting.retry_with_help(lambda: self._run(wants_plan))
        if result.passed:
            self._evidence = result
            return GateOutcome.PASSED
        if self._workspace.is_paused:
            await self._waiting.resume_workspace("the product was checked")
        if result.is_pending:
            await self._return_to_work()
            state.note_received(result)
            self._keep_finish(finishing)
            return GateOutcome.PENDING_INPUT
        return await self._bounce(TurnNote.GATE_FINDINGS, counts=not result.judged)

    async def _run(self, wants_plan: bool) -> GateResult:
        """Run the gate with the build's only permit: its workspace is paused meanwhile."""
        state = self._state
        if workflow.patched(patches.PERMITS.id) and not self._workspace.is_paused:
            await self._workspace.pause(keep_permit=True)
        return await workflow.execute_activity_method(
            GateActivities.run_evidence_gate,
            RunGate.sparse(
                build_id=self._build_id,
                number=state.gates,
                snapshot_number=state.snapshots,
                wants_plan=wants_plan,
                turn=state.turn,
            ),
            **on_queue_of(WorkerRole.BROWSER, state, policies.GATE),
            summary=f"evidence gate {state.gates}",
        )

    async def _bounce(self, note: TurnNote, *, counts: bool) -> GateOutcome:
        """Give the agent the findings by this note, a bounded number of times; then ask the founder.

        A bounce that does not count is bounded elsewhere.
        """
        state = self._state
        await self._return_to_work()
        state.notes.append(note)
        state.gates_since_person += counts
        if counts and state.gates_since_person >= state.loaded_context.gate_attempts:
            attempts = state.gates_since_person
            reason = f"The product failed its checks {attempts} times. Wake the build to let the agent try again."
            state.gates_since_person = 0
            if state.answered is not None:
                state.answered.step = TurnStep.COMPACT
            await self._waiting.wait_for_founder(reason)
        return GateOutcome.FAILED

    def _keep_finish(self, finishing: bool) -> None:
        """Let the build go on as it was asked to: also if it was asked to finish during the check."""
        self._state.finish = finishing or self._waiting.is_finishing

    async def _return_to_work(self) -> None:
        await self._projection.become(Status.CODE if self._state.phases else Status.SCAFFOLD)
