"""What a build does as the day's budget runs low: sum up its conversation, wind down, and stop until there is more."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.compact import CompactActivities
    from domain.budget import WIND_DOWN_TURNS, WindDown
    from domain.notes import TurnNote
    from domain.payloads import BLOCKED, BudgetCheck, CompactConversation, LoopState, ThinkOutcome, ThinkResult

from workflows import patches, policies
from workflows.failures import end_if_cancelled
from workflows.waiting import Waiting, best_effort


class DayBudget:
    """Follows what each turn says of the day's budget."""

    def __init__(self, build_id: str, state: LoopState, waiting: Waiting) -> None:
        self._build_id = build_id
        self._state = state
        self._waiting = waiting

    def wind_down(self, result: ThinkResult) -> bool:
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
        if state.wind_down_turns is None and self._is_to_compact(result):
            return False  # a shorter conversation may leave more of the day; the next turn says again
        if state.wind_down_turns is None:
            state.wind_down_turns = WIND_DOWN_TURNS
            state.notes.append(TurnNote.WIND_DOWN)
            return False
        state.wind_down_turns -= 1
        return state.wind_down_turns == 0 or result.outcome is ThinkOutcome.END_TURN

    async def compact(self, result: ThinkResult) -> None:
        """Sum up the conversation if it is long. If that fails, it goes on as it is."""
        if not self._is_to_compact(result):
            return

        async def sum_up() -> None:
            request = CompactConversation.sparse(
                build_id=self._build_id, turn=self._state.turn, winds_down=result.wind_down
            )
            compacted = await workflow.execute_activity_method(
                CompactActivities.compact, request, **policies.COMPACT, summary="sum up the conversation"
            )
            if compacted.opened:
                self._state.notes.append(TurnNote.COMPACTED)

        await best_effort(sum_up())
        end_if_cancelled()

    def _is_to_compact(self, result: ThinkResult) -> bool:
        return result.compact and workflow.patched(patches.COMPACTION.id)

    async def stop(self, result: ThinkResult, *, patient: bool = False) -> None:
        """Stop until there is budget. The agent then continues from its handoff note."""
        state = self._state
        if result.day is not None and not result.service_limit:
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
            service_limit=result.service_limit,
        )
        note = TurnNote.HANDOFF if why is ThinkOutcome.BUDGET else None
        await self._waiting.wait_for_budget(stop, patient=patient, note=note)
