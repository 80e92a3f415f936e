"""A build, from a brief to a running preview: what happens in which order, and nothing else."""

import asyncio
from typing import NoReturn

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.context import ContextActivities
    from activities.dispatch import DispatchActivities
    from activities.gate import GateActivities
    from activities.lifecycle import LifecycleActivities
    from activities.think import ThinkActivities
    from domain.budget import WIND_DOWN_TURNS, WindDown
    from domain.names import (
        ADMIT,
        BUILD_WORKFLOW,
        FINISH,
        MESSAGE,
        MONEY,
        PREVIEW_WORKFLOW,
        RESTORE,
        WAKE,
        preview_workflow_id,
    )
    from domain.notes import TurnNote
    from domain.payloads import (
        BLOCKED,
        BudgetCheck,
        BuildContext,
        BuildInput,
        BuildRef,
        DispatchInput,
        DispatchResult,
        FinishBuild,
        GateResult,
        LoopState,
        PreviewInput,
        RequestedCall,
        ResolvedModel,
        RunGate,
        SnapshotReason,
        ThinkInput,
        ThinkOutcome,
        ThinkResult,
    )
    from domain.status import Status

from workflows import patches, policies
from workflows.cleanup import shielded
from workflows.failures import end_if_cancelled, reason_of
from workflows.projection import Projection
from workflows.steering import Steering
from workflows.waiting import Waiting, best_effort
from workflows.workspace import Workspace


@workflow.defn(name=BUILD_WORKFLOW)
class BuildWorkflow:
    """One build. A chain of runs: each carries `LoopState` on to the next."""

    @workflow.init
    def __init__(self, request: BuildInput) -> None:
        self._build = BuildRef(build_id=request.build_id)
        self._state = request.state or LoopState()
        self._run_turns = 0
        self._projection = Projection(request.build_id, self._state)
        self._workspace = Workspace(request.build_id, self._state)
        self._waiting = Waiting(request.build_id, self._state, self._projection, self._workspace)
        self._steering = Steering(request.build_id, self._state, self._workspace, self._waiting)

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

    @workflow.signal(name=FINISH)
    def finish(self) -> None:
        """Take the product to the evidence gate as it is instead of continuing."""
        self._state.finish = self._state.wake = True

    @workflow.signal(name=MESSAGE)
    def message(self, number: int) -> None:
        """The founder has sent a message; the agent reads it at its next turn."""
        self._state.message_received = max(self._state.message_received, number)

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
            evidence = await self._work() if await self._prepare() else None
        except (asyncio.CancelledError, FailureError) as error:
            # Any other exception is a defect of ours: it fails the workflow task, and a fixed worker continues there.
            return await shielded(self._close(error))
        if evidence is None:
            await workflow.wait_condition(workflow.all_handlers_finished)
            workflow.continue_as_new(BuildInput(build_id=request.build_id, state=self._state))
        return await shielded(self._finish(evidence))

    async def _prepare(self) -> bool:
        """Get a slot, the context, the model and a workspace; a later run of the workflow has them already.

        Returns:
            False if the build is still queued and has to continue as new.
        """
        state = self._state
        if state.context is None:
            # Builds started before slots existed hold one; see migration 0003.
            has_queue = workflow.patched(patches.SLOTS.id)
            if has_queue and not await self._waiting.wait_for_slot():
                return False
            await self._projection.become(Status.STARTING)
            context = await self._waiting.retry_with_help(self._load_context)
            await self._waiting.retry_with_help(self._resolve_model)
            state.context, state.tool_calls_allowed = context, context.tool_call_cap
            if has_queue:
                stop = await self._waiting.retry_with_help(self._waiting.check_budget)
                if stop.exhausted:
                    await self._waiting.wait_for_budget(stop)
        if not self._workspace.is_open:
            await self._waiting.retry_with_help(self._workspace.open)
            await self._projection.become(Status.SCAFFOLD)
        return True

    async def _work(self) -> GateResult | None:
        """Take turn after turn until the product passes the evidence gate.

        Returns:
            The evidence; None if the history is long and the build has to continue as new.
        """
        state, waits = self._state, 0
        while True:
            if not state.turn_pending:
                end_if_cancelled()  # a new run would not see a cancel of this one
                if self._history_is_long():
                    return None
                state.turn += 1
                self._run_turns += 1
                state.turn_pending = True
                await self._waiting.retry_with_help(self._workspace.replace_in_time, in_sandbox=True)
            if state.has_pending_restore:
                await self._steering.restore()
            result = await self._think()
            if result.outcome is ThinkOutcome.BUSY:
                await self._waiting.wait_for_settlements(waits)
                waits += 1
                continue
            waits = 0
            if result.outcome in BLOCKED:
                await self._stop_for_budget(result)
                continue
            state.turn_pending = False
            wound_down = self._wind_down(result)
            if result.outcome is ThinkOutcome.REFUSED:
                await self._waiting.wait_for_founder(result.reason or "The model did not continue.")
            elif result.outcome is ThinkOutcome.TOOL_USE:
                await self._steering.guard(result.calls, await self._act(result.calls))
            await self._steering.guard_against_fruitless_turns(result)
            if wound_down and not state.finish:
                await self._stop_for_budget(result)
            elif (result.outcome is ThinkOutcome.END_TURN or state.finish) and not state.has_pending_restore:
                evidence = await self._pass_gate()
                if evidence is not None and evidence.passed:
                    return evidence

    async def _think(self) -> ThinkResult:
        """Make one model call. Notes added while it is retried are for the next turn."""
        state, notes = self._state, list(self._state.notes)
        request = ThinkInput.sparse(
            build_id=self._build.build_id,
            turn=state.turn,
            notes=notes,
            allow_calls=self._steering.calls_left if notes else 0,
        )
        self._projection.describe()

        async def think() -> ThinkResult:
            # Cleared before the budget is read, so that a later wake is seen before the build falls asleep.
            state.wake = state.money_changed = False
            return await workflow.execute_activity_method(
                ThinkActivities.think, request, **policies.THINK, summary=f"turn {state.turn}"
            )

        result = await self._waiting.retry_with_help(think)
        if result.outcome is not ThinkOutcome.BUSY and result.outcome not in BLOCKED:
            state.notes = state.notes[len(notes) :]
            state.message_read = max(state.message_read, result.message_read)
        return result

    def _wind_down(self, result: ThinkResult) -> bool:
        """Tell the agent when the day's budget runs low, or no longer does.

        Returns:
            True if the wind-down is complete.
        """
        state = self._state
        if not result.wind_down:
            if state.wind_down_turns is not None:
                state.wind_down_turns = None
                state.notes = [note for note in state.notes if note is not TurnNote.WIND_DOWN]
                state.notes.append(TurnNote.WIND_DOWN_OVER)
            return False
        if state.wind_down_turns is None:
            state.wind_down_turns = WIND_DOWN_TURNS
            state.notes.append(TurnNote.WIND_DOWN)
            return False
        state.wind_down_turns -= 1
        return state.wind_down_turns == 0 or result.outcome is ThinkOutcome.END_TURN

    async def _stop_for_budget(self, result: ThinkResult) -> None:
        """Stop until there is budget. The agent then continues from its handoff note."""
        state = self._state
        if result.day is not None:
            state.last_wind_down = WindDown(day=result.day, allowance=result.allowance)
        state.wind_down_turns = None
        state.notes = [note for note in state.notes if note not in (TurnNote.WIND_DOWN, TurnNote.WIND_DOWN_OVER)]
        why = ThinkOutcome.BUDGET if result.outcome not in BLOCKED else result.outcome
        stop = BudgetCheck(
            exhausted=True,
            outcome=why,
            reason=result.reason,
            waiting_for=result.waiting_for,
            renews_on=result.renews_on,
            day=result.day,
        )
        await self._waiting.wait_for_budget(stop)
        if why is ThinkOutcome.BUDGET:
            state.notes.append(TurnNote.HANDOFF)

    async def _act(self, calls: list[RequestedCall]) -> list[DispatchResult]:
        """Run a turn's tool calls: read-only ones side by side, the others in order."""
        results: list[DispatchResult] = []
        read_only: list[RequestedCall] = []
        for call in (call for call in calls if call.is_valid):
            if not call.mutating:
                read_only.append(call)
                continue
            results += await self._read(read_only)
            read_only = []
            await self._waiting.retry_with_help(self._workspace.replace_in_time, in_sandbox=True)
            results.append(await self._dispatch(call))
        results += await self._read(read_only)
        self._state.tool_calls += len(calls)
        if any(result.lost for result in results):
            full = any(result.disk_full for result in results)
            why = "the sandbox's disk was full" if full else "the sandbox was lost"
            await self._waiting.resume_workspace(why, replace=full)
        if commits := [result.commit for result in results if result.commit]:
            await self._end_phase(commits)
        return results

    async def _read(self, calls: list[RequestedCall]) -> list[DispatchResult]:
        """Run calls side by side. Failed ones are retried one by one: people are asked one thing at a time."""
        outcomes = await asyncio.gather(*map(self._dispatch_once, calls), return_exceptions=True)
        results: list[DispatchResult] = []
        for call, result in zip(calls, outcomes, strict=True):
            if isinstance(result, BaseException) and not isinstance(result, ActivityError):
                raise result
            results.append(await self._dispatch(call) if isinstance(result, BaseException) else result)
        return results

    async def _dispatch(self, call: RequestedCall) -> DispatchResult:
        return await self._waiting.retry_with_help(lambda: self._dispatch_once(call), in_sandbox=True)

    async def _dispatch_once(self, call: RequestedCall) -> DispatchResult:
        return await workflow.execute_activity_method(
            DispatchActivities.dispatch_tool,
            DispatchInput(build_id=self._build.build_id, tool_use_id=call.tool_use_id, sandbox=self._workspace.sandbox),
            **policies.TOOL,
            summary=call.summary,
        )

    async def _end_phase(self, commits: list[str]) -> None:
        """A commit ends a phase, and a phase ends with a snapshot. If the snapshot fails, the next one covers it."""
        state = self._state
        state.phases += len(commits)
        await best_effort(
            self._workspace.snapshot(
                SnapshotReason.PHASE, policies.SNAPSHOT_IF_POSSIBLE, phase=state.phases, commit=commits[-1]
            )
        )
        if state.status is Status.SCAFFOLD:
            await self._projection.become(Status.CODE)

    async def _pass_gate(self) -> GateResult | None:
        """Check the product in a fresh sandbox. If it fails, the agent gets the findings, a bounded number of times.

        Nothing passes while the founder has pending input.

        Returns:
            None if the sandbox was lost meanwhile: the agent first has to see what it has lost.
        """
        state = self._state
        finishing, state.finish = state.finish, False
        await self._projection.become(Status.CHECKS)
        sandbox = self._workspace.sandbox
        await self._waiting.retry_with_help(lambda: self._workspace.snapshot(SnapshotReason.GATE), in_sandbox=True)
        if self._workspace.sandbox != sandbox and workflow.patched(patches.REPLACES.id):
            state.finish = finishing
            await self._projection.become(Status.CODE if state.phases else Status.SCAFFOLD)
            return None
        state.gates += 1
        result = await self._waiting.retry_with_help(self._run_gate)
        if result.passed:
            return result
        await self._projection.become(Status.CODE if state.phases else Status.SCAFFOLD)
        if result.is_pending:
            state.note_received(result)
            state.finish = finishing
            return result
        state.notes.append(TurnNote.GATE_FINDINGS)
        state.gates_since_person += 1
        if state.gates_since_person >= self._context.gate_attempts:
            attempts = state.gates_since_person
            reason = f"The product failed its checks {attempts} times. Wake the build to let the agent try again."
            await self._waiting.wait_for_founder(reason)
            state.gates_since_person = 0
        return result

    async def _finish(self, evidence: GateResult) -> int:
        """Hand the gate's sandbox to the preview, close the build as ready and run the post-build hook."""
        state = self._state
        sandbox_id, url = evidence.sandbox_id or "", evidence.preview_url or ""
        await workflow.start_child_workflow(
            PREVIEW_WORKFLOW,
            PreviewInput(
                build_id=self._build.build_id, seconds=self._context.preview_seconds, sandbox_id=sandbox_id, url=url
            ),
            id=preview_workflow_id(self._build.build_id),
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            static_summary="keeps the product running",
        )
        finished = await workflow.execute_activity_method(
            LifecycleActivities.finish_build,
            FinishBuild(
                build_id=self._build.build_id,
                seq=self._projection.take(Status.READY),
                sandbox_id=sandbox_id,
                preview_url=url,
                phases_completed=state.phases,
                snapshot_number=state.snapshots,
            ),
            **policies.DATABASE,
            summary="ready",
        )
        self._projection.show_ready()
        try:
            await workflow.execute_activity_method(
                LifecycleActivities.run_post_build_hook, self._build, **policies.HOOK, summary="after the build"
            )
        except ActivityError:
            await workflow.execute_activity_method(
                LifecycleActivities.note_hook_failure,
                self._build,
                **policies.DATABASE,
                summary="after the build: failed",
            )
        await best_effort(self._workspace.release(keep=sandbox_id))
        return finished.build_version

    async def _close(self, error: BaseException) -> NoReturn:
        """Snapshot the workspace, release the sandbox, and end as cancelled or failed."""
        cancelled = is_cancelled_exception(error)
        reason = None if cancelled else reason_of(error)
        if self._workspace.is_open:
            await best_effort(self._workspace.snapshot(SnapshotReason.END, policies.SNAPSHOT_IF_POSSIBLE))
        await best_effort(self._workspace.release())
        await self._projection.become(Status.CANCELLED if cancelled else Status.FAILED, reason=reason)
        if cancelled:
            raise asyncio.CancelledError
        raise ApplicationError(reason or "The build failed.", type="BuildFailed", non_retryable=True)

    # ---- single activities, as functions that can be retried

    async def _load_context(self) -> BuildContext:
        return await workflow.execute_activity_method(
            ContextActivities.load_build_context, self._build, **policies.DATABASE, summary="brief and interview"
        )

    async def _resolve_model(self) -> ResolvedModel:
        return await workflow.execute_activity_method(
            ContextActivities.resolve_model, self._build, **policies.DATABASE, summary="model"
        )

    async def _run_gate(self) -> GateResult:
        state = self._state
        return await workflow.execute_activity_method(
            GateActivities.run_evidence_gate,
            RunGate(build_id=self._build.build_id, number=state.gates, snapshot_number=state.snapshots),
            **policies.GATE,
            summary=f"evidence gate {state.gates}",
        )

    # ---- state

    @property
    def _context(self) -> BuildContext:
        assert self._state.context is not None, "the context is loaded first"
        return self._state.context

    def _history_is_long(self) -> bool:
        limit = self._context.continue_as_new_turns
        return workflow.info().is_continue_as_new_suggested() or (limit is not None and self._run_turns >= limit)
