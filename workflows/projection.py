"""Projects a build's status to its row and feed, the search attributes and the Temporal UI."""

from datetime import datetime

from temporalio import workflow
from temporalio.common import SearchAttributeKey

with workflow.unsafe.imports_passed_through():
    from activities.lifecycle import LifecycleActivities
    from domain.names import BUILD_STATUS, BUILD_WAITING_FOR, wake_command
    from domain.payloads import LoopState, StatusChange
    from domain.status import Dependency, Status, WaitingFor

from workflows import policies

_STATUS = SearchAttributeKey.for_keyword(BUILD_STATUS)
_WAITING_FOR = SearchAttributeKey.for_keyword(BUILD_WAITING_FOR)


class Projection:
    """The workflow owns the status; these are its projections, each ordered by the status's sequence."""

    def __init__(self, build_id: str, state: LoopState) -> None:
        self._build_id = build_id
        self._state = state
        self._is_shown = state.shown is not None
        """The run before has recorded the status that this one begins with."""
        self._change = state.shown or StatusChange(build_id=build_id, seq=state.status_seq, status=state.status)
        state.shown = None
        self._repeats_until = 0
        """A run that goes on from rows may repeat statuses until this turn is over."""
        self._is_stale = False
        """The row's status is one in which an earlier run has waited."""

    async def become(
        self,
        status: Status,
        *,
        waiting_for: WaitingFor | None = None,
        reason: str | None = None,
        wakes_at: datetime | None = None,
        dependency: Dependency | None = None,
    ) -> None:
        """Take a status and project it everywhere."""
        change = StatusChange.sparse(
            build_id=self._build_id,
            seq=self._state.status_seq,
            status=status,
            waiting_for=waiting_for,
            reason=reason,
            wakes_at=wakes_at,
            dependency=dependency,
            again=self._repeats,
        )
        was_shown, self._is_shown = self._is_shown, False
        if was_shown and change == self._change:
            return self.describe()
        self._take_over(change.model_copy(update={"seq": self.take(status)}))
        await workflow.execute_activity_method(
            LifecycleActivities.record_status, self._change, **policies.DATABASE, summary=status
        )

    def next(self, status: Status) -> StatusChange:
        """What an activity is to record that takes the build to a status in which it works; then call `recorded`."""
        seq = self._state.status_seq + 1
        return StatusChange.sparse(build_id=self._build_id, seq=seq, status=status, again=self._repeats)

    def recorded(self, change: StatusChange) -> None:
        """Take a status that an activity has recorded; `become` need not record it."""
        self.take(change.status)
        self._take_over(change)
        self._is_shown = True

    @property
    def _repeats(self) -> bool:
        return self._state.turn <= self._repeats_until

    def _take_over(self, change: StatusChange) -> None:
        self._change = change
        self._is_stale = False
        self.describe()
        waits_for = change.waiting_for or change.dependency
        waits = _WAITING_FOR.value_set(waits_for) if waits_for else _WAITING_FOR.value_unset()
        workflow.upsert_search_attributes([_STATUS.value_set(change.status), waits])

    @property
    def shown(self) -> StatusChange:
        """What was recorded last."""
        return self._change

    def follow(self, shown: Status) -> None:
        """Go on from the status that the build's row has. The feed does not repeat it."""
        state = self._state
        self._repeats_until, self._is_stale = max(1, state.turn), shown is not state.status
        self._change = StatusChange(build_id=self._build_id, seq=state.status_seq, status=shown)
        self.describe()
        workflow.upsert_search_attributes([_STATUS.value_set(shown)])

    async def catch_up(self) -> None:
        """Say that the build works again, if its row does not."""
        if self._is_stale:
            await self.become(self._state.status)

    def take(self, status: Status) -> int:
        """Take a status that another activity writes; returns its sequence number."""
        self._state.status = status
        self._state.status_seq += 1
        return self._state.status_seq

    def show_ready(self) -> None:
        """Project that the build is ready, after `finish_build` has recorded it."""
        self._change = StatusChange(build_id=self._build_id, seq=self._state.status_seq, status=Status.READY)
        self.describe()
        workflow.upsert_search_attributes([_STATUS.value_set(Status.READY), _WAITING_FOR.value_unset()])

    def describe(self) -> None:
        """Update what an operator reads in the Temporal UI; this adds nothing to history."""
        state, change = self._state, self._change
        counts = ((state.tool_calls, "tool call"), (state.phases, "phase"))
        totals = ", ".join(f"{count} {what}{'' if count == 1 else 's'}" for count, what in counts)
        lines = [f"**{change.status}**, turn {state.turn}, {totals}"]
        if change.reason:
            lines.append(change.reason)
        if change.wakes_at:
            lines.append(f"Wakes by itself at {change.wakes_at:%Y-%m-%d %H:%M} UTC.")
        if change.waiting_for:
            lines.append(f"Waits for: {change.waiting_for.replace('_', ' ')}")
        if change.waiting_for is WaitingFor.KILL_SWITCH:
            lines.append(
                "`cofounder switch list` says what is off. It continues when that is on and AUTONOMOUS_AGENT is true."
            )
        elif change.dependency:
            lines.append(f"Waits for: {change.dependency}. It continues by itself.")
            lines.append(f"Try again now:\n```\n{wake_command(self._build_id)}\n```")
        elif change.waiting_for or change.wakes_at:
            lines.append(f"Wake it now:\n```\n{wake_command(self._build_id)}\n```")
        workflow.set_current_details("\n\n".join(lines))
