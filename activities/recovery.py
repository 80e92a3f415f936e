"""What a new run of a build's workflow goes on from: the build's rows.

A run repeats what follows the build's last turn. The turn's answer and the results of its calls are stored, so nothing
of that is paid or run again.
"""

import uuid
from collections.abc import Sequence
from datetime import UTC, timedelta

from temporalio import activity

from activities.context import context_of
from activities.runtime.errors import application_errors
from activities.tool_outcome import error_of
from db.models import ToolCall, Turn
from db.money import budget_of
from db.prompts import find_prompt
from db.recovery import BuildRecord, calls_before, read_record
from db.session import Sessions
from db.transaction import Transaction, transaction
from domain.answer import input_of
from domain.budget import WindDown
from domain.build_settings import BuildSettings
from domain.guards import WINDOW, call_signature, count_errors
from domain.notes import TurnNote
from domain.payloads import BuildRef, LoadedState, LoopCounters, LoopState
from domain.status import CLOSED, Status, WaitingFor
from domain.tool_output import parse_stored_blocks

_SEARCHED_CALLS = 200
"""Search this many of the build's last calls for errors since its last commit."""


class RecoveryActivities:
    """The activity `load_state`."""

    def __init__(self, sessions: Sessions, settings: BuildSettings) -> None:
        self._sessions = sessions
        self._settings = settings

    @activity.defn
    @application_errors
    async def load_state(self, request: BuildRef) -> LoadedState:
        """Read from the build's rows where its workflow goes on. Of a new build they say nothing yet.

        The context has the settings that this worker has, since those of the lost run are in no row.
        """
        build_id = uuid.UUID(request.build_id)
        async with transaction(self._sessions) as tx:
            record = await read_record(tx, build_id)
            build, status = record.build, Status(record.build.status)
            if status in CLOSED:
                return LoadedState.sparse(ended=status, version=build.build_version, reason=build.reason)
            state = LoopState(
                status_seq=build.status_seq,
                snapshots=record.snapshots,
                message_received=record.message_received,
                message_read=record.message_read,
                restore_requested=record.restore_requested,
                restore_done=record.restore_done,
            )
            has_begun = record.has_model and build.admitted_at is not None
            if has_begun and (prompt := await find_prompt(tx, build_id)) is not None:
                state.context = await context_of(tx, build, self._settings, prompt)
                state.tool_calls_allowed = state.context.tool_call_cap
                state.status = _working_status(record)
            if record.turn is not None:
                await self._take_turn(tx, state, record, record.turn)
            if build.status == Status.SLEEPING and build.wakes_at is not None:
                day = build.wakes_at.astimezone(UTC).date() - timedelta(days=1)
                budget = await budget_of(tx, build.user_id, day)
                state.last_wind_down = WindDown(day=day, allowance=budget.allowance)
        return LoadedState.sparse(
            state=state,
            sandbox_id=build.sandbox_id,
            shown=status if build.status_seq > 0 else None,
            asleep=_is_asleep(record),
            answered=record.turn is not None and record.turn.answered_at is not None,
            gates=record.gate.number if record.gate is not None else 0,
            lost_minutes=build.lost_minutes,
        )

    async def _take_turn(self, tx: Transaction, state: LoopState, record: BuildRecord, turn: Turn) -> None:
        """Let the state be what it was when the build's last turn was asked for."""
        state.turn, state.turn_pending = turn.number, True
        state.tool_calls, state.phases = record.calls, record.phases
        state.gates = _gates_before(record, turn)
        counters = LoopCounters.model_validate(turn.counters or {})
        for name in set(LoopCounters.model_fields) - {"tool_calls_allowed"}:
            setattr(state, name, getattr(counters, name))
        if counters.tool_calls_allowed is not None:
            state.tool_calls_allowed = counters.tool_calls_allowed
        state.nights += max(0, record.sleeps - (record.build.status == Status.SLEEPING))
        calls = await calls_before(tx, record.build.id, turn.number, record.counted_since, _SEARCHED_CALLS)
        state.recent_calls = _signatures(calls)[-WINDOW:]
        state.error_counts = _errors([call for call, _ in calls])
        state.sent_notes, state.notes = [], _notes(record, turn)


def _working_status(record: BuildRecord) -> Status:
    """The status that the build has while it works. A gate that its last turn has not led to is over."""
    status = record.working_status or Status.STARTING
    if status is Status.CHECKS and (record.turn is None or record.turn.answered_at is None):
        return Status.CODE if record.phases else Status.SCAFFOLD
    return status


def _is_asleep(record: BuildRecord) -> bool:
    """Whether the build was asleep or waited for budget: its workspace is in a snapshot, and its sandbox is paused."""
    build = record.build
    waits = build.status == Status.NEEDS_INPUT and (
        build.wakes_at is not None or build.waiting_for == WaitingFor.KILL_SWITCH or record.sleeps > 0
    )
    return build.status == Status.SLEEPING or waits


def _gates_before(record: BuildRecord, turn: Turn) -> int:
    """The last run of the gate before the repeated part: the one that the last turn has led to is asked for again."""
    gate = record.gate
    if gate is None:
        return 0
    follows_turn = turn.answered_at is not None and gate.started_at > turn.answered_at
    is_current = record.restored_at is None or record.restored_at < gate.started_at
    return gate.number - 1 if follows_turn and is_current else gate.number


def _notes(record: BuildRecord, turn: Turn) -> list[TurnNote]:
    """What the agent is told with its next message, and what the run that was lost knew."""
    notes = [TurnNote.RESUMED] if record.has_resumed else []
    gate = record.gate
    if gate is not None and gate.findings and turn.answered_at is None and gate.started_at > turn.claimed_at:
        notes.append(TurnNote.GATE_FINDINGS)
    if record.sleeps and turn.answered_at is not None:
        notes.append(TurnNote.HANDOFF)
    return notes


def _signatures(calls: Sequence[tuple[ToolCall, str]]) -> list[str]:
    return [
        call_signature(call.name, input_of(parse_stored_blocks(answer), call.tool_use_id)) for call, answer in calls
    ]


def _errors(calls: Sequence[ToolCall]) -> dict[str, int]:
    """How often each error has occurred since the last turn with a commit, that turn included."""
    last_commit = max((call.turn for call in calls if call.commit is not None), default=0)
    errors = [
        error_of(call, call.result)
        for call in calls
        if call.turn >= last_commit and call.is_error and not call.lost and call.intended_at and call.result
    ]
    return count_errors({}, [error for error in errors if error is not None])
