"""A build, from a brief to a running preview: what happens in which order, and nothing else."""

import asyncio
from enum import Enum, auto

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    from activities.context import ContextActivities
    from activities.think import ThinkActivities
    from domain.names import (
        ADMIT,
        BUILD_WORKFLOW,
        FINISH,
        MESSAGE,
        MONEY,
        PERMIT,
        RECOVERED,
        RESTORE,
        SETTINGS,
        UPGRADE,
        WAKE,
    )
    from domain.notes import TurnNote
    from domain.payloads import (
        BLOCKED,
        AnsweredTurn,
        BudgetCheck,
        BuildContext,
        BuildInput,
        BuildRef,
        LoopState,
        ResolvedModel,
        ThinkInput,
        ThinkOutcome,
        ThinkResult,
        TurnStep,
    )
    from domain.status import Status

from workflows import patches, policies
from workflows.budget import DayBudget
from workflows.completion import Completion
from workflows.failures import end_if_cancelled, shielded
from workflows.gate import EvidenceGate, GateOutcome
from workflows.outage import Outage
from workflows.plan import PlanCheck
from workflows.projection import Projection
from workflows.recovery import BuildHasEnded, Recovery
from workflows.settings import SettingsChanges
from workflows.steering import Steering
from workflows.tool_calls import ToolCalls
from workflows.upgrade import Upgrade
from workflows.waiting import Waiting
from workflows.workspace import Workspace


class Preparation(Enum):
    """How the preparation of a run ended."""

    READY = auto()
    """The build has a slot, its context, a model and a workspace."""
    STILL_QUEUED = auto()
    """The build waits for a slot, and its history is long: continue as new."""


class WorkOutcome(Enum):
    """How the work of a run ended."""

    PASSED = auto()
    """The product has passed the evidence gate."""
    CONTINUES = auto()
    """Continue as new."""


@workflow.defn(name=BUILD_WORKFLOW)
class BuildWorkflow:
    """One build. A chain of runs: each carries `LoopState` on to the next, which may have another version."""

    @workflow.init
    def __init__(self, request: BuildInput) -> None:
        self._build = BuildRef(build_id=request.build_id)
        self._state = request.state or LoopState()
        self._run_turns = 0
        self._projection = Projection(request.build_id, self._state)
        self._workspace = Workspace(request.build_id, self._state)
        self._upgrade = upgrade = Upgrade(request.build_id, self._state, self._projection)
        outage = Outage(self._state, self._projection, self._workspace, upgrade)
        self._waiting = Waiting(request.build_id, self._state, self._projection, self._workspace, outage, upgrade)
        self._steering = Steering(request.build_id, self._state, self._workspace, self._waiting)
        self._plan = PlanCheck(request.build_id, self._state, self._workspace, self._waiting, self._steering)
        shared = request.build_id, self._state, self._projection, self._workspace
        self._tool_calls = ToolCalls(*shared, self._waiting)
        self._gate = EvidenceGate(*shared, self._waiting)
        self._budget = DayBudget(request.build_id, self._state, self._waiting)
        self._completion = Completion(*shared, outage)
        self._recovery = Recovery(*shared, self._waiting)
        self._settings = SettingsChanges(request.build_id, self._state, self._waiting)

    @workflow.signal(name=WAKE)
    def wake(self) -> None:
        """Check again whether the build can continue."""
        self._state.wake = True

    @workflow.signal(name=MONEY)
    def money(self) -> None:
        """The account's budget or standing has changed: check whether that is what the build waits for."""
        self._state.money_changed = True

    @workflow.signal(name=ADMIT)
    def admit(self) -> None:
        """Check whether one of the user's slots is free."""
        self._state.admit = True

    @workflow.signal(name=RECOVERED)
    def recovered(self) -> None:
        """Try again what a dependency's outage has kept from succeeding."""
        self._state.recovered = True

    @workflow.signal(name=PERMIT)
    def permit(self) -> None:
        """Check whether a permit to have the sandbox running is free."""
        self._state.permit_free = True

    @workflow.signal(name=UPGRADE)
    def upgrade(self) -> None:
        """Move to the version that the workers are to have."""
        self._state.upgrade = True

    @workflow.signal(name=FINISH)
    def finish(self) -> None:
        """Take the product to the evidence gate as it is instead of continuing."""
        self._state.finish = self._state.wake = True

    @workflow.signal(name=MESSAGE)
    def message(self, number: int) -> None:
        """The founder has sent a message; the agent reads it at its next turn."""
        self._state.message_received = max(self._state.message_received, number)

    @workflow.signal(name=SETTINGS)
    def settings(self, version: int) -> None:
        """An operator has changed the build's settings; it takes them over before its next turn."""
        self._settings.note(version)

    @workflow.signal(name=RESTORE)
    def restore(self, number: int) -> None:
        """The founder has requested a restore of the workspace; it happens between two turns."""
        self._state.restore_requested = max(self._state.restore_requested, number)

    @workflow.run
    async def run(self, request: BuildInput) -> int:
        """Build the product; returns its version.

        Raises:
            ApplicationError: the build failed; the message is what the founder reads.
            CancelledError: the build was cancelled.
        """
        try:
            if request.state is None and workflow.patched(patches.RECOVERY.id):
                await self._recovery.load()
            passed = await self._recovery.over_rows(self._build_product)
        except BuildHasEnded as ended:
            return self._completion.repeat(ended.loaded)
        except (asyncio.CancelledError, FailureError) as error:
            # Any other exception is a defect of ours: it fails the workflow task, and a fixed worker continues there.
            return await shielded(self._completion.close(error))
        if not passed:
            await workflow.wait_condition(workflow.all_handlers_finished)
            self._upgrade.continue_as_new()
        return await shielded(self._completion.finish(self._gate.evidence))

    async def _build_product(self) -> bool:
        """Build until the product passes the evidence gate; False if the next run of the workflow has to go on."""
        return await self._prepare() is Preparation.READY and await self._work() is WorkOutcome.PASSED

    async def _prepare(self) -> Preparation:
        """Get a slot, the context, the model and a workspace; a later run of the workflow has them already."""
        state = self._state
        await self._waiting.rest_on()
        if state.context is None:
            # Builds started before slots existed hold one; see migration 0003.
            has_queue = workflow.patched(patches.SLOTS.id)
            if has_queue and not await self._waiting.wait_for_slot():
                return Preparation.STILL_QUEUED
            await self._projection.become(Status.STARTING)
            stop: BudgetCheck | None
            if workflow.patched(patches.BEGINS.id):
                prepared = await self._waiting.retry_with_help(self._waiting.prepare_build)
                context, stop = prepared.context, prepared.budget
                state.context, state.tool_calls_allowed = context, context.tool_call_cap
            else:
                context = await self._waiting.retry_with_help(self._load_context)
                await self._waiting.retry_with_help(self._resolve_model)
                state.context, state.tool_calls_allowed = context, context.tool_call_cap
                stop = await self._waiting.retry_with_help(self._waiting.check_budget) if has_queue else None
            if stop is not None and stop.exhausted:
                await self._waiting.wait_for_budget(stop)
        with self._upgrade.held(when=not self._workspace.may_be_left):
            await self._recovery.sleep_on()
        if self._workspace.is_unverified:
            with self._upgrade.held():
                await self._recovery.verify_workspace()
        elif not self._workspace.is_open:
            await self._open_workspace()
        return Preparation.READY

    async def _open_workspace(self) -> None:
        async def open_workspace() -> None:
            # A build that waits goes back to the status before first, and so not straight to the next one.
            is_starting = self._state.status is Status.STARTING and workflow.patched(patches.BEGINS.id)
            change = self._projection.next(Status.SCAFFOLD) if is_starting else None
            if await self._workspace.open(change) and change is not None:
                self._projection.recorded(change)

        await self._waiting.retry_with_help(open_workspace, resumable=True)
        await self._projection.become(Status.SCAFFOLD)

    async def _work(self) -> WorkOutcome:
        """Take turn after turn until the product passes the evidence gate."""
        state, waits, patient = self._state, 0, False
        if state.answered is not None and await self._follow(state.answered):
            return WorkOutcome.PASSED
        while True:
            await self._settings.take_over()
            if not state.turn_pending:
                end_if_cancelled()  # a new run would not see a cancel of this one
                if self._is_to_continue_as_new():
                    return WorkOutcome.CONTINUES
                state.turn += 1
                self._run_turns += 1
                state.turn_pending = True
                await self._projection.catch_up()
                await self._waiting.retry_with_help(self._workspace.replace_in_time, in_sandbox=True, resumable=True)
            if state.has_pending_restore:
                with self._upgrade.held():
                    await self._steering.restore()
            result = await self._think(patient=patient)
            if result is None or (
                (result.outcome in BLOCKED or result.wait_seconds is not None)
                and not patient
                and self._waiting.may_finish(result.outcome)
            ):
                # Asked to finish, and the model can't be asked: check what is there.
                with self._upgrade.held():
                    outcome = None if state.has_pending_restore else await self._gate.check()
                if outcome is GateOutcome.PASSED:
                    return WorkOutcome.PASSED
                # Only the model can read what the founder has sent.
                patient = outcome is GateOutcome.PENDING_INPUT and not state.has_pending_restore
                continue
            if result.outcome is ThinkOutcome.BUSY and result.wait_seconds is not None:
                await self._waiting.wait_for_rate(result.wait_seconds)
                end_if_cancelled()  # a new run would not see a cancel of this one
                if self._is_to_continue_as_new():
                    return WorkOutcome.CONTINUES
                continue
            if result.outcome is ThinkOutcome.BUSY:
                await self._waiting.wait_for_settlements(waits)
                waits += 1
                continue
            waits = 0
            if result.outcome in BLOCKED:
                await self._budget.stop(result, patient=patient)
                continue
            state.turn_pending = patient = False
            if await self._follow(AnsweredTurn(result=result, wound_down=self._budget.wind_down(result))):
                return WorkOutcome.PASSED

    async def _follow(self, turn: AnsweredTurn) -> bool:
        """Act on a turn's answer, or go on with that where the run before has continued as new in a wait.

        Returns:
            True if the product has passed the evidence gate.
        """
        state, result = self._state, turn.result
        state.answered = turn
        if turn.step is TurnStep.CALLS:
            await self._act(turn)
        if turn.step is TurnStep.CAP:
            turn.step = TurnStep.SILENCE
            if result.outcome is ThinkOutcome.TOOL_USE:
                await self._steering.stop_at_cap()
        if turn.step is TurnStep.SILENCE:
            turn.step = TurnStep.ENDING
            self._steering.remind_silent_agent(result)
            await self._steering.guard_against_fruitless_turns(result)
        if turn.step is TurnStep.ENDING:
            turn.step = self._ending_of(turn)
        if turn.step is TurnStep.BUDGET:
            await self._budget.compact(result)
            turn.step = TurnStep.STOP
        if turn.step is TurnStep.STOP:
            await self._budget.stop(result)
        elif await self._passes(turn):
            return True
        else:
            await self._budget.compact(result)
        state.answered = None
        return False

    async def _act(self, turn: AnsweredTurn) -> None:
        """Run a turn's calls, or stop if the model did not go on."""
        state, result = self._state, turn.result
        state.refusals = state.refusals + 1 if result.declined else 0
        if result.outcome is ThinkOutcome.TOOL_USE:
            await self._steering.guard(result.calls, await self._tool_calls.run(result.calls))
        turn.step = TurnStep.CAP
        if result.outcome is ThinkOutcome.REFUSED:
            await self._steering.stop_if_refused(result)

    def _ending_of(self, turn: AnsweredTurn) -> TurnStep:
        """How a turn ends: the day's budget is used up, the product is due for its checks, or neither."""
        if turn.wound_down and not self._state.finish:
            return TurnStep.BUDGET
        return TurnStep.PLAN if self._is_due_for_gate(turn.result) else TurnStep.COMPACT

    async def _passes(self, turn: AnsweredTurn) -> bool:
        """Check the product if it is due for that; returns whether it passes."""
        if turn.step is TurnStep.BLOCKER:
            turn.step = TurnStep.GATE if self._state.finish else TurnStep.COMPACT
        if turn.step is TurnStep.PLAN:
            turn.step = TurnStep.GATE if await self._plan.lets_pass() else TurnStep.COMPACT
            turn.sandbox = None
        if turn.step not in (TurnStep.GATE, TurnStep.EVIDENCE):
            return False
        return await self._gate.check() is GateOutcome.PASSED

    async def _think(self, *, patient: bool) -> ThinkResult | None:
        """Make one model call. Notes added while it is retried are for the next turn, also if that is in a new run.

        Args:
            patient: wait for an answer even if the founder has asked to finish.

        Returns:
            None if the founder has asked to finish, and no answer has come. The turn stays open.
        """
        state = self._state
        is_sent = state.sent_notes is not None
        if state.sent_notes is None:
            state.sent_notes, state.notes = state.notes, []
        notes = state.sent_notes
        request = ThinkInput.sparse(
            build_id=self._build.build_id,
            turn=state.turn,
            notes=notes,
            allow_calls=self._steering.calls_left if notes else 0,
            refusals=state.refusals,
            counters=state.counters,
        )
        self._projection.describe()

        async def think() -> ThinkResult:
            # Cleared before the budget is read, so that a later wake is seen before the build falls asleep.
            state.wake = state.money_changed = False
            return await workflow.execute_activity_method(
                ThinkActivities.think, request, **policies.THINK, summary=f"turn {state.turn}"
            )

        waiting = self._waiting
        result = await (
            waiting.retry_with_help(think, resumable=True) if patient else waiting.retry_until_finish(think)
        )
        if result is not None and (result.outcome is ThinkOutcome.BUSY or result.outcome in BLOCKED):
            if not is_sent:
                state.sent_notes, state.notes = None, [*notes, *state.notes]
            return result  # nothing was sent
        if result is not None:
            state.sent_notes = None
            state.message_read = max(state.message_read, result.message_read)
            self._settings.note(result.settings)
        return result

    # ---- single activities, as functions that can be retried

    async def _load_context(self) -> BuildContext:
        return await workflow.execute_activity_method(
            ContextActivities.load_build_context, self._build, **policies.DATABASE, summary="brief and interview"
        )

    async def _resolve_model(self) -> ResolvedModel:
        return await workflow.execute_activity_method(
            ContextActivities.resolve_model, self._build, **policies.DATABASE, summary="model"
        )

    def _is_due_for_gate(self, result: ThinkResult) -> bool:
        state = self._state
        # An agent that has not read the last findings has not met them.
        ended = result.outcome is ThinkOutcome.END_TURN and TurnNote.GATE_FINDINGS not in state.notes
        return (ended or state.finish) and not state.has_pending_restore

    def _is_to_continue_as_new(self) -> bool:
        """Whether the history is long, or the workers are to have another version. Each run of it takes a turn."""
        is_long = self._upgrade.is_long(self._run_turns)
        return is_long or ((self._run_turns > 0 or self._state.upgrade) and self._upgrade.is_due)
