"""Holds a product back from the gate while the agent's plan is open: an agent that only reports is told to go on."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.plan import PlanActivities
    from domain.notes import TurnNote
    from domain.payloads import LoopState, PlanReading, ReadPlan
    from domain.plan import MAX_REMINDERS

from workflows import patches, policies
from workflows.steering import Steering
from workflows.waiting import Waiting
from workflows.workspace import Workspace


class PlanCheck:
    """Reads the plan after a turn that the agent has ended. A build whose prompt asks for no plan is not held back."""

    def __init__(
        self, build_id: str, state: LoopState, workspace: Workspace, waiting: Waiting, steering: Steering
    ) -> None:
        self._build_id = build_id
        self._state = state
        self._workspace = workspace
        self._waiting = waiting
        self._steering = steering

    async def lets_pass(self) -> bool:
        """Whether the product may go to the gate: the plan is done, or the founder wants the product as it is.

        If stories are open, the agent is told which, or the founder is asked about the blocker that it names. Without
        progress in the plan the agent is told a few times only; then the gate decides.
        """
        state = self._state
        if state.finish or not state.loaded_context.wants_plan or not workflow.patched(patches.PLAN.id):
            return True
        sandbox = self._workspace.sandbox_of(state.answered)
        reading = await self._waiting.retry_with_help(self._read, in_sandbox=True)
        if self._state.finish:  # the founder has decided meanwhile
            return True
        if self._workspace.sandbox != sandbox:
            return False  # the sandbox was lost: the agent first has to see what that has cost
        if reading.is_done:
            return True
        if reading.blocked:
            state.plan_reminders = 0
            await self._steering.ask_about_blocker()
            return self._state.finish
        if self._has_progressed(reading):
            state.plan_reminders = 0
        if state.plan_reminders >= MAX_REMINDERS:
            return True
        state.plan_reminders += 1
        state.notes.append(TurnNote.OPEN_ITEMS)
        return False

    async def _read(self) -> PlanReading:
        request = ReadPlan(
            build_id=self._build_id, turn=self._state.turn, sandbox_id=self._workspace.sandbox.sandbox_id
        )
        return await workflow.execute_activity_method(
            PlanActivities.read_plan, request, **policies.SANDBOX, summary="read the plan"
        )

    def _has_progressed(self, reading: PlanReading) -> bool:
        """Whether fewer stories are open, or more are done, than ever before. Undoing both and doing them again is no
        progress, so that a plan that goes up and down can't hold the gate back for ever."""
        state = self._state
        if not reading.open and not reading.done:
            return False
        progressed = state.fewest_open is None or reading.open < state.fewest_open or reading.done > state.most_done
        state.fewest_open = reading.open if state.fewest_open is None else min(state.fewest_open, reading.open)
        state.most_done = max(state.most_done, reading.done)
        return progressed
