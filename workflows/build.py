"""A build: from a brief to a running preview. What happens in which order, and nothing else."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, NoReturn, TypeVar

from temporalio import workflow
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.context import ContextActivities
    from activities.dispatch import DispatchActivities
    from activities.gate import GateActivities
    from activities.lifecycle import LifecycleActivities
    from activities.snapshot import SnapshotActivities
    from activities.think import ThinkActivities
    from activities.workspace import WorkspaceActivities
    from domain.budget import next_utc_midnight
    from domain.failures import judge_failure
    from domain.guards import is_repeating, remember
    from domain.names import (
        BUILD_STATUS,
        BUILD_WAITING_FOR,
        BUILD_WORKFLOW,
        FINISH,
        PREVIEW_WORKFLOW,
        WAKE,
        preview_workflow_id,
        wake_command,
    )
    from domain.payloads import (
        BuildContext,
        BuildInput,
        BuildRef,
        DispatchInput,
        DispatchResult,
        FinishBuild,
        GateResult,
        LoopState,
        OpenWorkspace,
        PreviewInput,
        RequestedCall,
        ResumeWorkspace,
        RunGate,
        SandboxInput,
        SandboxRef,
        StatusChange,
        TakeSnapshot,
        ThinkInput,
        ThinkOutcome,
        ThinkResult,
        TurnNote,
    )
    from domain.status import Status, WaitingFor

from workflows import policies

_STATUS = SearchAttributeKey.for_keyword(BUILD_STATUS)
_WAITING_FOR = SearchAttributeKey.for_keyword(BUILD_WAITING_FOR)

T = TypeVar("T")


@workflow.defn(name=BUILD_WORKFLOW)
class BuildWorkflow:
    """One build. A chain of runs: each carries `LoopState` on to the next."""

    @workflow.init
    def __init__(self, given: BuildInput) -> None:
        self._id = given.build_id
        self._state = given.state or LoopState()
        self._run_turns = 0
        self._waits: tuple[WaitingFor | None, str | None, datetime | None] = (None, None, None)

    @workflow.signal(name=WAKE)
    def wake(self) -> None:
        """Look again whether the build can go on."""
        self._state.wake = True

    @workflow.signal(name=FINISH)
    def finish(self) -> None:
        """Take what is there to the evidence gate instead of going on."""
        self._state.finish = self._state.wake = True

    @workflow.run
    async def run(self, given: BuildInput) -> int:
        """Build the product; returns its version.

        Raises:
            ApplicationError: the build failed; the message is what the founder reads.
            CancelledError: the build was cancelled.
        """
        try:
            await self._prepare()
            evidence = await self._work()
        except (asyncio.CancelledError, FailureError) as error:
            # Any other exception is a defect of ours: it fails the workflow task, and shipping its mend heals the build.
            return await _shielded(self._close(error))
        if evidence is None:
            await workflow.wait_condition(workflow.all_handlers_finished)
            workflow.continue_as_new(BuildInput(build_id=self._id, state=self._state))
        return await _shielded(self._succeed(evidence))

    # ---- the steps, in order

    async def _prepare(self) -> None:
        """Context, model and workspace; a later run of the workflow has them already."""
        state = self._state
        if state.context is None:
            await self._become(Status.STARTING)
            build = BuildRef(build_id=self._id)
            context = await self._asking_people(
                lambda: workflow.execute_activity_method(
                    ContextActivities.load_build_context, build, **policies.DATABASE, summary="brief and interview"
                )
            )
            await self._asking_people(
                lambda: workflow.execute_activity_method(
                    ContextActivities.resolve_model, build, **policies.DATABASE, summary="model"
                )
            )
            state.context, state.tool_calls_allowed = context, context.tool_call_cap
        if state.sandbox is None:
            opened = await self._asking_people(
                lambda: workflow.execute_activity_method(
                    WorkspaceActivities.open_workspace,
                    OpenWorkspace(build_id=self._id),
                    **policies.SANDBOX,
                    summary="open the sandbox",
                )
            )
            state.sandbox = opened.sandbox
            await self._become(Status.SCAFFOLD)

    async def _work(self) -> GateResult | None:
        """Turn after turn, until the evidence gate is passed. None: the history is long, continue as new."""
        state = self._state
        while True:
            if not state.turn_pending:
                if self._history_is_long():
                    return None
                state.turn += 1
                self._run_turns += 1
                state.turn_pending = True
            self._describe()
            result = await self._think()
            if result.outcome is ThinkOutcome.BUDGET:
                await self._sleep(result)
                continue
            state.turn_pending = False
            ended = result.outcome is ThinkOutcome.END_TURN
            if result.outcome is ThinkOutcome.REFUSED:
                await self._ask(WaitingFor.FOUNDER, result.reason or "The model did not go on.")
            elif result.outcome is ThinkOutcome.TOOL_USE:
                await self._act(result.calls)
                await self._guard(result.calls)
            if (ended or state.finish) and (evidence := await self._gate()):
                return evidence

    async def _think(self) -> ThinkResult:
        """One model call. Notes that came up while it was retried are for the next turn."""
        state, notes = self._state, list(self._state.notes)
        asked = ThinkInput(build_id=self._id, turn=state.turn)
        if notes:
            asked = asked.model_copy(update={"notes": notes, "allow_calls": self._calls_left()})

        async def think() -> ThinkResult:
            # Cleared before the budget is read: a wake that comes later is seen before falling asleep.
            state.wake = False
            return await workflow.execute_activity_method(
                ThinkActivities.think, asked, **policies.THINK, summary=f"turn {state.turn}"
            )

        result = await self._asking_people(think)
        if result.outcome is not ThinkOutcome.BUDGET:
            state.notes = state.notes[len(notes) :]
        return result

    async def _act(self, calls: list[RequestedCall]) -> None:
        """Run a turn's tool calls: those that only read side by side, the others in order. Then a snapshot, if a
        commit ended a phase."""
        results: list[DispatchResult] = []
        reading: list[RequestedCall] = []
        for call in [*calls, None]:
            if call is not None and not call.ok:
                continue
            if call is not None and not call.m:
                reading.append(call)
                continue
            results += await asyncio.gather(*(self._dispatch(each) for each in reading))
            reading = []
            if call is not None:
                results.append(await self._dispatch(call))
        self._state.tool_calls += len(calls)
        if any(result.lost for result in results):
            await self._resume("the sandbox was lost")
        if commits := [result.commit for result in results if result.commit]:
            await self._end_phase(commits)

    async def _dispatch(self, call: RequestedCall) -> DispatchResult:
        async def dispatch() -> DispatchResult:
            return await workflow.execute_activity_method(
                DispatchActivities.dispatch_tool,
                DispatchInput(build_id=self._id, id=call.id, sandbox=self._sandbox),
                **policies.TOOL,
                summary=call.t,
            )

        return await self._asking_people(dispatch)

    async def _end_phase(self, commits: list[str]) -> None:
        """Count the phases and snapshot the workspace. A failed snapshot is an event; the next one makes up for it."""
        self._state.phases += len(commits)
        asked = self._snapshot_input("phase").model_copy(update={"phase": self._state.phases, "commit": commits[-1]})
        await self._trying(self._take_snapshot(asked, policies.SNAPSHOT_IF_POSSIBLE))
        if self._state.status is Status.SCAFFOLD:
            await self._become(Status.CODE)

    async def _guard(self, calls: list[RequestedCall]) -> None:
        """Steer an agent that goes in circles, and stop one that has used up its tool calls."""
        state, signatures = self._state, [call.s for call in calls]
        repeating = is_repeating(state.recent_calls, signatures)
        state.recent_calls = remember(state.recent_calls, signatures)
        if repeating and not state.steered:
            state.steered = True
            state.notes.append(TurnNote.STEER_REPEATING)
        elif repeating:
            state.steered, state.recent_calls = False, []
            await self._ask(WaitingFor.FOUNDER, "The agent keeps making the same call and gets no further.")
        if self._calls_left() > 0:
            return
        if not state.last_turn_given:
            state.last_turn_given = True
            state.notes.append(TurnNote.LAST_TURN)
            return
        used = f"The build has used its {state.tool_calls_allowed} tool calls. Wake it for as many more."
        await self._ask(WaitingFor.FOUNDER, used)
        state.last_turn_given = False
        state.tool_calls_allowed = state.tool_calls + self._context.tool_call_cap
        state.notes.append(TurnNote.CONTINUE_AFTER_CAP)

    async def _gate(self) -> GateResult | None:
        """Look at the product's evidence in a fresh sandbox. None: bounced, and the agent is told why."""
        state = self._state
        state.finish = False
        await self._become(Status.CHECKS)
        await self._snapshot("gate")
        state.gates += 1
        number = state.gates

        async def run_gate() -> GateResult:
            return await workflow.execute_activity_method(
                GateActivities.run_evidence_gate,
                RunGate(build_id=self._id, number=number, snapshot_number=state.snapshots),
                **policies.GATE,
                summary=f"evidence gate {number}",
            )

        result = await self._asking_people(run_gate)
        if result.findings == 0:
            return result
        await self._become(Status.CODE if state.phases else Status.SCAFFOLD)
        state.notes.append(TurnNote.GATE_FINDINGS)
        state.gates_since_person += 1
        if state.gates_since_person >= self._context.gate_attempts:
            tries = f"The product has not passed its checks in {state.gates_since_person} tries. Wake it for more."
            await self._ask(WaitingFor.FOUNDER, tries)
            state.gates_since_person = 0
        return None

    # ---- waiting

    async def _sleep(self, found: ThinkResult) -> None:
        """Sleep until there is money again: a new UTC day, or a wake that finds some."""
        before, exhausted = self._state.status, "Today's budget is used up."
        await self._snapshot("sleep")
        await self._asking_people(self._pause)
        while True:
            wakes_at = next_utc_midnight(workflow.now())
            await self._become(Status.SLEEPING, reason=exhausted, wakes_at=wakes_at)
            woken = await self._wait_for_wake(wakes_at - workflow.now(), "sleeping until the next UTC day")
            budget = await self._asking_people(
                lambda: workflow.execute_activity_method(
                    ThinkActivities.check_budget, BuildRef(build_id=self._id), **policies.DATABASE, summary="budget"
                )
            )
            if not budget.exhausted:
                break
            exhausted = "Woken, but today's budget is still used up."
        await self._resume("woken by a signal" if woken else "a new day's budget")
        await self._become(before)

    async def _ask(self, waiting_for: WaitingFor, reason: str) -> None:
        """Wait for a person, for as long as it takes; the sandbox is paused meanwhile. Afterwards all is as before."""
        before, working = self._state.status, self._state.sandbox is not None
        if working:
            await self._trying(self._take_snapshot(self._snapshot_input("wait"), policies.SNAPSHOT_IF_POSSIBLE))
            await self._trying(self._pause())
        while True:
            await self._become(Status.NEEDS_INPUT, waiting_for=waiting_for, reason=reason)
            await self._wait_for_wake(None, f"waiting for {waiting_for.replace('_', ' ')}")
            try:
                if working:
                    await self._resume_workspace("a person asked the build to go on")
                break
            except ActivityError as error:
                waiting_for, reason = _whom_to_ask(error)
        await self._become(before)

    async def _asking_people(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do a step; where it fails for a reason that a person can mend, wait for that person and do it again."""
        while True:
            try:
                return await step()
            except ActivityError as error:
                waiting_for, reason = _whom_to_ask(error)
            await self._ask(waiting_for, reason)

    async def _wait_for_wake(self, timeout: timedelta | None, summary: str) -> bool:
        """Wait for the wake signal; False when the time ran out. The flag is cleared before anything is looked at."""
        try:
            await workflow.wait_condition(lambda: self._state.wake, timeout=timeout, timeout_summary=summary)
        except TimeoutError:
            return False
        finally:
            self._state.wake = False
        return True

    # ---- the end

    async def _succeed(self, evidence: GateResult) -> int:
        """Hand the gate's sandbox to the preview, close the build as ready, and tell the rest of the business."""
        state = self._state
        assert evidence.sandbox_id and evidence.preview_url, "a passed gate names its sandbox"
        await workflow.start_child_workflow(
            PREVIEW_WORKFLOW,
            PreviewInput(
                build_id=self._id,
                seconds=self._context.preview_seconds,
                sandbox_id=evidence.sandbox_id,
                url=evidence.preview_url,
            ),
            id=preview_workflow_id(self._id),
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            static_summary="keeps the product running",
        )
        state.status, state.status_seq = Status.READY, state.status_seq + 1
        finished = await workflow.execute_activity_method(
            LifecycleActivities.finish_build,
            FinishBuild(
                build_id=self._id,
                seq=state.status_seq,
                gate_number=state.gates,
                sandbox_id=evidence.sandbox_id,
                preview_url=evidence.preview_url,
                phases_completed=state.phases,
                snapshot_number=state.snapshots,
            ),
            **policies.DATABASE,
            summary="ready",
        )
        workflow.upsert_search_attributes([_STATUS.value_set(Status.READY)])
        self._describe()
        build = BuildRef(build_id=self._id)
        try:
            await workflow.execute_activity_method(
                LifecycleActivities.run_post_build_hook, build, **policies.HOOK, summary="after the build"
            )
        except ActivityError:
            await workflow.execute_activity_method(
                LifecycleActivities.note_hook_failure, build, **policies.DATABASE, summary="after the build: failed"
            )
        await self._trying(self._release(keep=evidence.sandbox_id))
        return finished.build_version

    async def _close(self, error: BaseException) -> NoReturn:
        """Snapshot what is there, let go of the sandbox, and end as cancelled or failed."""
        cancelled = is_cancelled_exception(error)
        reason = None if cancelled else _reason(error)
        if self._state.sandbox is not None:
            await self._trying(self._take_snapshot(self._snapshot_input("end"), policies.SNAPSHOT_IF_POSSIBLE))
        await self._trying(self._release())
        await self._become(Status.CANCELLED if cancelled else Status.FAILED, reason=reason)
        if cancelled:
            raise asyncio.CancelledError
        raise ApplicationError(reason or "The build failed.", type="BuildFailed", non_retryable=True)

    # ---- activities that several steps need

    async def _become(
        self,
        status: Status,
        *,
        waiting_for: WaitingFor | None = None,
        reason: str | None = None,
        wakes_at: datetime | None = None,
    ) -> None:
        """Take a status, and project it to the row, the search attributes and the Temporal UI."""
        state = self._state
        state.status, state.status_seq = status, state.status_seq + 1
        self._waits = (waiting_for, reason, wakes_at)
        self._describe()
        workflow.upsert_search_attributes(
            [
                _STATUS.value_set(status),
                _WAITING_FOR.value_set(waiting_for) if waiting_for else _WAITING_FOR.value_unset(),
            ]
        )
        given = {"waiting_for": waiting_for, "reason": reason, "wakes_at": wakes_at}
        told = {key: value for key, value in given.items() if value is not None}
        await workflow.execute_activity_method(
            LifecycleActivities.record_status,
            StatusChange(build_id=self._id, seq=state.status_seq, status=status).model_copy(update=told),
            **policies.DATABASE,
            summary=status,
        )

    async def _snapshot(self, reason: str) -> None:
        """A snapshot that must succeed, or a person decides."""
        await self._asking_people(lambda: self._take_snapshot(self._snapshot_input(reason), policies.SNAPSHOT))

    async def _take_snapshot(self, asked: TakeSnapshot, options: policies.Options) -> None:
        try:
            await workflow.execute_activity_method(
                SnapshotActivities.snapshot_workspace, asked, **options, summary=f"snapshot: {asked.reason}"
            )
        except ActivityError as error:
            if not is_cancelled_exception(error):
                await workflow.execute_activity_method(
                    SnapshotActivities.note_snapshot_failure, asked, **policies.DATABASE, summary="snapshot failed"
                )
            raise

    def _snapshot_input(self, reason: str) -> TakeSnapshot:
        """Assigns the next number: before archiving, so that a stalled older one never becomes current."""
        self._state.snapshots += 1
        return TakeSnapshot(
            build_id=self._id, sandbox_id=self._sandbox.sandbox_id, number=self._state.snapshots, reason=reason
        )

    async def _pause(self) -> None:
        await workflow.execute_activity_method(
            WorkspaceActivities.pause_workspace,
            SandboxInput(build_id=self._id, sandbox_id=self._sandbox.sandbox_id),
            **policies.SANDBOX,
            summary="pause the sandbox",
        )

    async def _resume(self, cause: str) -> None:
        await self._asking_people(lambda: self._resume_workspace(cause))

    async def _resume_workspace(self, cause: str) -> None:
        """Resume the sandbox with its files verified against the snapshot, and tell the agent."""
        resumed = await workflow.execute_activity_method(
            WorkspaceActivities.resume_workspace,
            ResumeWorkspace(build_id=self._id, sandbox_id=self._sandbox.sandbox_id, cause=cause),
            **policies.SANDBOX,
            summary="verify the workspace",
        )
        self._state.sandbox = resumed.sandbox
        if TurnNote.RESUMED not in self._state.notes:
            self._state.notes.append(TurnNote.RESUMED)

    async def _release(self, keep: str | None = None) -> None:
        """Let go of every sandbox of the build, except the one that its preview keeps."""
        sandbox = self._state.sandbox
        await workflow.execute_activity_method(
            WorkspaceActivities.release_workspace,
            SandboxInput(build_id=self._id, sandbox_id=sandbox.sandbox_id if sandbox else "", keep=keep),
            **policies.SANDBOX,
            summary="let go of the sandbox",
        )

    async def _trying(self, step: Awaitable[None]) -> None:
        """Do a step whose failure is told by the step itself and stops nothing."""
        try:
            await step
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            workflow.logger.warning("a step failed that stops nothing", extra={"error": str(error.cause)})

    # ---- what is known

    @property
    def _context(self) -> BuildContext:
        assert self._state.context is not None, "the context is loaded first"
        return self._state.context

    @property
    def _sandbox(self) -> SandboxRef:
        assert self._state.sandbox is not None, "the workspace is opened first"
        return self._state.sandbox

    def _calls_left(self) -> int:
        return self._state.tool_calls_allowed - self._state.tool_calls

    def _history_is_long(self) -> bool:
        limit = self._context.continue_as_new_turns
        return workflow.info().is_continue_as_new_suggested() or (limit is not None and self._run_turns >= limit)

    def _describe(self) -> None:
        """What an operator reads in the Temporal UI."""
        state, (waiting_for, reason, wakes_at) = self._state, self._waits
        lines = [f"**{state.status}**, turn {state.turn}, {state.tool_calls} tool calls, {state.phases} phases"]
        if reason:
            lines.append(reason)
        if wakes_at:
            lines.append(f"Wakes by itself at {wakes_at:%Y-%m-%d %H:%M} UTC.")
        if waiting_for:
            lines.append(f"Waits for: {waiting_for}")
        if waiting_for or wakes_at:
            lines.append(f"Wake it now:\n```\n{wake_command(self._id)}\n```")
        workflow.set_current_details("\n\n".join(lines))


async def _shielded(ending: Coroutine[Any, Any, T]) -> T:
    """Run the end of a build to its end, also when a cancel arrives meanwhile."""
    task = asyncio.create_task(ending)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    return task.result()


def _reason(error: BaseException) -> str:
    cause = error.cause if isinstance(error, ActivityError) else error
    return getattr(cause, "message", None) or str(cause)


def _whom_to_ask(error: ActivityError) -> tuple[WaitingFor, str]:
    """Who can mend a failed step, and what they are told.

    Raises:
        ActivityError: the same, where nobody can, or where it is a cancellation.
    """
    if is_cancelled_exception(error):
        raise error
    cause = error.cause
    known = isinstance(cause, ApplicationError)
    verdict = judge_failure(cause.type if known else None, _reason(error), cause.details if known else ())
    if verdict.waiting_for is None:
        raise error
    return verdict.waiting_for, verdict.reason
