"""Steering the agent: guards against circles and dead ends, questions to the founder, and restores they request."""

from collections.abc import Sequence

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.question import QuestionActivities
    from activities.restore import RestoreActivities
    from domain.guards import FRUITLESS, SILENT, count_errors, is_repeating, remember, stuck_on
    from domain.notes import TurnNote
    from domain.payloads import (
        AskFounder,
        DispatchResult,
        FinishRestore,
        LoopState,
        RequestedCall,
        RestoreWorkspace,
        SnapshotReason,
        ThinkOutcome,
        ThinkResult,
        TurnStep,
    )
    from domain.refusals import REFUSALS_IN_A_ROW
    from domain.status import WaitingFor
    from domain.worker_roles import WorkerRole

from workflows import patches, policies
from workflows.queues import on_queue_of
from workflows.waiting import Waiting
from workflows.workspace import Workspace


class Steering:
    """Checks the results of a turn's calls, and stops for the founder if the agent cannot make progress."""

    def __init__(self, build_id: str, state: LoopState, workspace: Workspace, waiting: Waiting) -> None:
        self._build_id = build_id
        self._state = state
        self._workspace = workspace
        self._waiting = waiting

    @property
    def calls_left(self) -> int:
        """Tool calls that the agent may still make."""
        return self._state.tool_calls_allowed - self._state.tool_calls

    async def guard(self, calls: Sequence[RequestedCall], results: Sequence[DispatchResult]) -> None:
        """Steer an agent that goes in circles; stop one that is stuck."""
        state, signatures = self._state, [call.signature for call in calls]
        repeating = is_repeating(state.recent_calls, signatures)
        state.recent_calls = remember(state.recent_calls, signatures)
        counts = {} if any(result.commit for result in results) else state.error_counts
        errors = [result.error_signature for result in results if result.error_signature]
        state.error_counts = count_errors(counts, errors)
        if error := stuck_on(state.error_counts):
            await self._ask(AskFounder(build_id=self._build_id, question_id=str(workflow.uuid4()), error=error))
        elif repeating and not state.steered:
            state.steered = True
            state.notes.append(TurnNote.STEER_REPEATING)
        elif repeating:
            await self._ask_about_circle(signatures)

    async def guard_against_fruitless_turns(self, result: ThinkResult) -> None:
        """Stop an agent after several turns without a usable answer: each of them is paid for."""
        state = self._state
        state.fruitless_turns = state.fruitless_turns + 1 if result.outcome is ThinkOutcome.CONTINUE else 0
        if state.fruitless_turns >= FRUITLESS and workflow.patched(patches.FRUITLESS_TURNS.id):
            state.fruitless_turns = 0
            reason = (
                f"The model's last {FRUITLESS} answers were cut off or empty, or had nothing that could be run. Wake "
                "the build to try again."
            )
            await self._waiting.wait_for_founder(reason)

    async def stop_if_refused(self, result: ThinkResult) -> None:
        """Stop if the model did not go on, unless a safety check has declined an answer for the first or second time.

        The agent is told in its next turn to leave out what was declined; see `activities/turn/user_message.py`.
        """
        state = self._state
        if result.declined and state.refusals < REFUSALS_IN_A_ROW and workflow.patched(patches.REFUSALS.id):
            return
        state.refusals = 0
        await self._waiting.wait_for_founder(result.reason or "The model did not continue.")

    def remind_silent_agent(self, result: ThinkResult) -> None:
        """Ask an agent to speak if its founder has heard nothing for several turns."""
        state = self._state
        state.silent_turns = state.silent_turns + 1 if result.silent else 0
        if state.silent_turns >= SILENT:
            state.silent_turns = 0
            state.notes.append(TurnNote.SPEAK)

    async def _ask_about_circle(self, signatures: Sequence[str]) -> None:
        state = self._state
        if workflow.patched(patches.QUESTIONS.id):
            call = max(signatures, key=state.recent_calls.count)
            await self._ask(AskFounder(build_id=self._build_id, question_id=str(workflow.uuid4()), call=call))
            return
        state.steered, state.recent_calls = False, []
        reason = "The agent keeps making the same call without progress. Wake the build to let it try again."
        self._note_next(TurnStep.CAP)
        await self._waiting.wait_for_person(WaitingFor.FOUNDER, reason)

    async def ask_about_blocker(self) -> None:
        """Ask the founder for what the agent's last message says that it can't do without."""
        question_id, turn = str(workflow.uuid4()), self._state.turn
        question = AskFounder(build_id=self._build_id, question_id=question_id, blocked_turn=turn)
        await self._ask(question, TurnStep.BLOCKER)

    async def _ask(self, question: AskFounder, after: TurnStep = TurnStep.CAP) -> None:
        """Ask the founder and wait for an answer; a wake lets the agent try again without one.

        Nothing is asked while the founder has pending input: that comes first. `after`: the step that follows.
        """
        state = self._state
        state.steered, state.recent_calls, state.error_counts = False, [], {}
        result = await workflow.execute_activity_method(
            QuestionActivities.ask_founder, question, **policies.DATABASE, summary="a question to the founder"
        )
        if result.is_pending:
            state.note_received(result)
            return
        self._note_next(after)
        await self._waiting.wait_for_founder(result.reason, note=TurnNote.ASKED)

    async def restore(self) -> None:
        """Restore the workspace to the state that the founder requested, with a snapshot before and after it."""
        state, number = self._state, self._state.restore_requested
        await self._waiting.retry_with_help(
            lambda: self._workspace.snapshot(SnapshotReason.BEFORE_RESTORE), in_sandbox=True
        )
        number_before = state.snapshots
        if await self._waiting.retry_with_help(lambda: self._restore_once(number), in_sandbox=True):
            finished = FinishRestore(
                build_id=self._build_id, number=number, snapshot_before=number_before, snapshot_after=state.snapshots
            )
            await workflow.execute_activity_method(
                RestoreActivities.finish_restore, finished, **policies.DATABASE, summary="the workspace is restored"
            )
        state.restore_done, state.steered, state.recent_calls, state.error_counts = number, False, [], {}

    async def _restore_once(self, number: int) -> bool:
        """Restore and snapshot in one step: if the snapshot fails and the sandbox is resumed, both are repeated."""
        request = RestoreWorkspace(
            build_id=self._build_id, number=number, sandbox_id=self._workspace.sandbox.sandbox_id
        )
        restored = await workflow.execute_activity_method(
            RestoreActivities.restore_workspace,
            request,
            **on_queue_of(WorkerRole.ARCHIVE, self._state, policies.SANDBOX),
            summary="restore the workspace",
        )
        if restored.done:
            await self._workspace.snapshot(SnapshotReason.RESTORE)
        return restored.done

    async def stop_at_cap(self) -> None:
        """Stop an agent that has used up its tool calls, after a turn to commit its work."""
        state = self._state
        if self.calls_left > 0:
            return
        if not state.last_turn_given:
            state.last_turn_given = True
            state.notes.append(TurnNote.LAST_TURN)
            return
        reason = f"The build has used its {state.tool_calls_allowed} tool calls. Wake it for as many more."
        state.last_turn_given = False
        state.tool_calls_allowed = state.tool_calls + state.loaded_context.tool_call_cap
        # Pending input answers an older question; this is a new one.
        await self._waiting.wait_for_person(WaitingFor.FOUNDER, reason, note=TurnNote.CONTINUE_AFTER_CAP)

    def _note_next(self, step: TurnStep) -> None:
        """Let a run that begins in the next wait go on with this step of the turn."""
        if self._state.answered is not None:
            self._state.answered.step = step
