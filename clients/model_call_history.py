"""Reads from the history of a build's run which model calls it has asked for, and how often each was tried."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.converter import DataConverter

from domain.lost_calls import COMPACTION, JUDGE, TURN, AskedCalls, billed_failures, billed_judges
from domain.names import COMPACT_ACTIVITY, GATE_ACTIVITY, THINK_ACTIVITY
from domain.payloads import (
    BLOCKED,
    BuildInput,
    CompactConversation,
    GateResult,
    RunGate,
    ThinkInput,
    ThinkOutcome,
    ThinkResult,
)

_NO_CALL = {*BLOCKED, ThinkOutcome.BUSY}


@dataclass(frozen=True)
class Progress:
    """How far a run has come: its last answered turn, and the calls that it has asked for. The API may bill them."""

    turn: int
    asked: tuple[AskedCalls, ...] = ()


@dataclass
class _Activity:
    """An activity that makes a model call. `billed`: how many of its attempts that have ended may be billed; None while
    none is known to have ended."""

    id: str
    kind: str
    turn: int
    asked_at: datetime
    before: int = 0
    billed: int | None = None

    def billed_of(self, failures: int, last: Failure) -> int:
        """How many calls of failed attempts may be billed."""
        count = billed_judges if self.kind == JUDGE else billed_failures
        return count(failures, _error_type(last))


@dataclass
class ModelCallHistory:
    """Takes the events of a run in their order. It notes no calls that were asked for up to the event `after`."""

    converter: DataConverter
    after: int = 0
    resets: list[tuple[str, int]] = field(default_factory=list)
    """The runs that this one has taken the place of by a reset, and the event up to which it has their history."""
    continues: str = ""
    """The run that this one has continued as new; empty if it is the first."""
    first_turn: int = 0
    """The last turn that was answered before this run began."""
    _turn: int = 0
    _activities: dict[int, _Activity] = field(default_factory=dict)
    _earlier: list[_Activity] = field(default_factory=list)

    async def add(self, event: HistoryEvent) -> None:
        """Note what the event says of model calls."""
        if event.HasField("workflow_execution_started_event_attributes"):
            begun = event.workflow_execution_started_event_attributes
            [started] = await self.converter.decode(begun.input.payloads, [BuildInput])
            self.continues = begun.continued_execution_run_id
            if started.state is not None:
                self._turn = self.first_turn = started.state.turn - started.state.turn_pending
        elif event.workflow_task_failed_event_attributes.base_run_id:
            self.resets.append((event.workflow_task_failed_event_attributes.base_run_id, event.event_id))
        elif event.HasField("activity_task_scheduled_event_attributes") and event.event_id > self.after:
            await self._add_scheduled(event)
        elif event.HasField("activity_task_started_event_attributes"):
            tried = event.activity_task_started_event_attributes
            if activity := self._activities.get(tried.scheduled_event_id):
                activity.before = activity.billed_of(tried.attempt - 1, tried.last_failure)
        elif event.HasField("activity_task_completed_event_attributes"):
            await self._add_completed(event)
        elif event.HasField("activity_task_failed_event_attributes"):
            failed = event.activity_task_failed_event_attributes
            if activity := self._activities.get(failed.scheduled_event_id):
                self._end(failed.scheduled_event_id, activity.billed_of(1, failed.failure))
        elif event.HasField("activity_task_timed_out_event_attributes"):
            self._end(event.activity_task_timed_out_event_attributes.scheduled_event_id, 1)
        elif event.HasField("activity_task_canceled_event_attributes"):
            canceled = event.activity_task_canceled_event_attributes
            self._end(canceled.scheduled_event_id, int(canceled.started_event_id > 0))

    def add_earlier(self, run: "ModelCallHistory") -> None:
        """Note what a run has come to and asked for that this one has continued or taken the place of."""
        self._turn = max(self._turn, run._turn)
        self._earlier += [*run._earlier, *run._activities.values()]

    def progress(self, pending: Iterable[PendingActivityInfo]) -> Progress:
        """How far the run has come. `pending`: its activities that have not ended."""
        by_id = {each.activity_id: each for each in pending}
        asked: dict[tuple[str, int], AskedCalls] = {}
        own = self._activities.values()
        for activity in (*self._earlier, *own):
            calls = activity.billed
            if calls is None and activity in own and activity.id in by_id:
                calls = _begun(activity, by_id[activity.id])
            elif calls is None:
                calls = activity.before + 1  # the workflow was ended during it; how often it was tried is not known
            key = (activity.kind, activity.turn)
            earlier = asked.get(key)
            asked[key] = AskedCalls(
                *key,
                asked_at=activity.asked_at if earlier is None else min(activity.asked_at, earlier.asked_at),
                calls=calls if earlier is None else earlier.calls + calls,
            )
        return Progress(self._turn, tuple(asked.values()))

    async def _add_scheduled(self, event: HistoryEvent) -> None:
        scheduled = event.activity_task_scheduled_event_attributes
        asked_at = event.event_time.ToDatetime(UTC)
        if scheduled.activity_type.name == THINK_ACTIVITY:
            [request] = await self.converter.decode(scheduled.input.payloads, [ThinkInput])
            kind, turn = TURN, request.turn
        elif scheduled.activity_type.name == COMPACT_ACTIVITY:
            [summed] = await self.converter.decode(scheduled.input.payloads, [CompactConversation])
            kind, turn = COMPACTION, summed.turn
        elif scheduled.activity_type.name == GATE_ACTIVITY:
            [gate] = await self.converter.decode(scheduled.input.payloads, [RunGate])
            kind, turn = JUDGE, gate.turn
        else:
            return
        self._activities[event.event_id] = _Activity(scheduled.activity_id, kind, turn, asked_at)

    async def _add_completed(self, event: HistoryEvent) -> None:
        completed = event.activity_task_completed_event_attributes
        activity = self._activities.get(completed.scheduled_event_id)
        if activity is None:
            return
        calls = 1
        if activity.kind == TURN:
            [result] = await self.converter.decode(completed.result.payloads, [ThinkResult])
            calls = result.unused
            if result.outcome not in _NO_CALL:
                calls += 1
                self._turn = max(self._turn, activity.turn)
        elif activity.kind == JUDGE:
            [gate] = await self.converter.decode(completed.result.payloads, [GateResult])
            calls = int(gate.paid)
        self._end(completed.scheduled_event_id, calls)

    def _end(self, scheduled_event_id: int, calls: int) -> None:
        if activity := self._activities.get(scheduled_event_id):
            activity.billed = activity.before + calls


def _begun(activity: _Activity, pending: PendingActivityInfo) -> int:
    """How many attempts of an activity that has not ended may be billed."""
    is_running = pending.state != PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
    return activity.billed_of(pending.attempt - 1, pending.last_failure) + int(is_running)


def _error_type(failure: Failure) -> str | None:
    return failure.application_failure_info.type or None
