"""How a build waits for a slot, for budget and for people: as long as it takes, without losing anything."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime, time, timedelta
from typing import Any, TypeVar
from uuid import UUID

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.context import ContextActivities
    from activities.slots import SlotActivities
    from activities.think import ThinkActivities
    from domain.budget import morning_delay, next_utc_midnight
    from domain.notes import TurnNote
    from domain.payloads import (
        BudgetCheck,
        BuildRef,
        CheckBudget,
        ClaimSlot,
        LoopState,
        PreparedBuild,
        Rest,
        SlotClaim,
        SnapshotReason,
        ThinkOutcome,
    )
    from domain.status import MAX_NIGHTS, Dependency, SleepPolicy, Status, WaitingFor

from workflows import patches, policies
from workflows.failures import (
    database_was_away,
    end_if_cancelled,
    is_stale,
    outage_of,
    reason_of,
    responsible_party,
    sandbox_problem,
)
from workflows.outage import Outage
from workflows.permits import PermitQueue
from workflows.projection import Projection
from workflows.upgrade import Upgrade
from workflows.wake import wait_for_wake
from workflows.workspace import Workspace

T = TypeVar("T")

_SETTLEMENT_WAIT = timedelta(seconds=15)
"""The first wait for other builds' calls to be settled, which no signal announces. Each next wait is twice as long."""

_SETTLEMENT_WAIT_MAX = timedelta(minutes=5)
"""The longest such wait; it bounds the history that a day of waiting adds."""

_FINISH_GRACE = timedelta(minutes=1)
"""A request to finish waits this long for the answer of a model call that runs, and then for none."""

_SLOT_CHECK_INTERVAL = timedelta(hours=1)
"""How often a queued build checks for a free slot by itself, in case the `admit` signal and its repeats are lost."""

_SLOT_CHECKS_PER_RUN = 50
"""Slot checks per run before continuing as new; each adds about 13 history events. A sleeping build keeps its slot, so
the next one may be queued for months."""

_PATIENT_RESUMES = 2
"""A sandbox that is out of reach is replaced only if it still is after this many attempts, with a wait after each."""

_STALE_ATTEMPTS = 3
"""A step whose last attempt lost its claim to an earlier one starts over this many times."""

_STOPPED_BY_POLICY = (
    "Not enough of today's budget is left, and this build was started with the policy to stop instead of sleeping. Its "
    "work is kept as a snapshot."
)
_SHORT_OF_BUDGET = "Not enough of today's budget is left for the next step."
_STILL_SHORT_OF_BUDGET = "Checked again: not enough of today's budget is left for the next step."


class Waiting:
    """Waits with the sandbox paused; afterwards the workspace is verified and the status is what it was before."""

    def __init__(
        self,
        build_id: str,
        state: LoopState,
        projection: Projection,
        workspace: Workspace,
        outage: Outage,
        upgrade: Upgrade,
    ) -> None:
        self._build = BuildRef(build_id=build_id)
        self._state = state
        self._projection = projection
        self._workspace = workspace
        self._outage = outage
        self._upgrade = upgrade
        self._permits = PermitQueue(build_id, state, projection, upgrade)
        self._rests_in_run = 0

    async def retry_with_help(
        self, step: Callable[[], Awaitable[T]], *, in_sandbox: bool = False, resumable: bool = False
    ) -> T:
        """Do a step. If it fails because a dependency is away, wait for that and do it again. If it fails for a reason
        that a person can fix, wait for that person and do it again.

        Args:
            step: what to do.
            in_sandbox: the step runs in the build's sandbox. If that is gone, full or out of reach, restore the
                workspace into another sandbox before asking a person.
            resumable: a new run of the workflow comes to this step by itself.

        Raises:
            ActivityError: no person can fix it, or the build was cancelled.
            CancelledError: the build was cancelled.
        """
        while True:
            end_if_cancelled()
            try:
                result = await self._through_outages(step, in_sandbox=in_sandbox, resumable=resumable)
            except ActivityError as error:
                end_if_cancelled()
                cause = sandbox_problem(error) if in_sandbox else None
                if cause is not None and workflow.patched(patches.REPLACES.id):
                    in_sandbox = False  # if a new sandbox does not help, ask a person
                    await self.resume_workspace(cause, replace=True)
                    continue
                waiting_for, reason = responsible_party(error)
            else:
                end_if_cancelled()
                return result
            await self.wait_for_person(waiting_for, reason, is_question=False)

    async def _through_outages(
        self,
        step: Callable[[], Awaitable[T]],
        *,
        in_sandbox: bool = False,
        resumable: bool = False,
        is_resume: bool = False,
    ) -> T:
        """Do a step. If a dependency is away, wait until it is back, as long as it takes, and do it again.

        `is_resume`: the step resumes the sandbox, perhaps between two attempts at a step that an outage has stopped.

        Raises:
            ActivityError: it has failed for another reason.
            CancelledError: the build was cancelled.
        """
        nested, stale = is_resume and self._outage.is_open, 0
        if (outage := self._state.outage) is not None and self._outage.is_resting:
            nested = False  # an earlier run has waited here
            await self._outage.wait_for_answer(outage.dependency, None, resumable=resumable)
            if not is_resume:
                await self._prepare_attempt(outage.dependency, in_sandbox=in_sandbox)
        while True:
            try:
                result = await self._permits.when_permitted(step)
            except ActivityError as error:
                end_if_cancelled()
                if not workflow.patched(patches.OUTAGES.id):
                    raise
                if database_was_away(error) or (is_stale(error) and stale < _STALE_ATTEMPTS):
                    stale += is_stale(error)  # the database's outage may have used up the attempts that this takes
                    continue
                dependency = outage_of(error)
                if dependency is None or not await self._outage.wait_for_answer(
                    dependency, reason_of(error), resumable=resumable
                ):
                    await self._outage.end()
                    raise
                if not is_resume:
                    await self._prepare_attempt(dependency, in_sandbox=in_sandbox)
            else:
                if not nested:
                    await self._end_outage()
                return result

    async def _prepare_attempt(self, dependency: Dependency, *, in_sandbox: bool) -> None:
        """Resume the sandbox for another attempt, if it was paused meanwhile or was out of reach itself."""
        was_out_of_reach = in_sandbox and dependency is Dependency.SANDBOX
        is_needed = self._outage.has_paused and dependency is not Dependency.MODEL
        if self._workspace.is_open and (was_out_of_reach or is_needed):
            await self._resume_within_outage(f"the {dependency} answers again")

    async def _end_outage(self) -> None:
        if not self._outage.is_open:
            return
        if self._outage.has_paused and self._workspace.is_open:
            await self._resume_within_outage("a long wait is over")
        await self._outage.end()

    async def _resume_within_outage(self, cause: str) -> None:
        await self.resume_workspace(cause)
        self._outage.note_resumed()

    async def retry_until_finish(self, step: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        """Do a step as `retry_with_help` does, unless the founder asks to finish: that does not wait for it.

        Returns:
            None if the founder has asked to finish, and the step has failed or not ended within a grace period.

        Raises:
            ActivityError, CancelledError: as `retry_with_help`.
        """
        failed = False

        async def once() -> T | None:
            nonlocal failed
            if failed and self.is_finishing:
                return None
            try:
                return await self._with_grace(step())
            except ActivityError as error:
                end_if_cancelled()
                if not self.is_finishing:
                    failed = True
                    raise
                if not is_cancelled_exception(error):
                    responsible_party(error)  # raises an error that fails the build
                return None

        return await self.retry_with_help(once, resumable=True)

    @property
    def goes_on_waiting(self) -> bool:
        """Whether the run before has continued as new while a dependency was away; the next step waits on."""
        return self._outage.is_resting

    @property
    def is_finishing(self) -> bool:
        """Whether the founder has asked to finish, and nothing that only the model or time can end may delay that."""
        return self._state.finish and workflow.patched(patches.FINISH.id)

    async def _with_grace(self, step: Coroutine[Any, Any, T]) -> T:
        """Do a step. If it still runs a grace period after the founder has asked to finish, cancel it."""
        state, task = self._state, asyncio.create_task(step)
        try:
            await workflow.wait_condition(lambda: task.done() or state.finish)
            if not task.done() and self.is_finishing:
                with suppress(TimeoutError):
                    await workflow.wait_condition(
                        task.done, timeout=_FINISH_GRACE, timeout_summary="asked to finish: wait for a last answer"
                    )
                task.cancel()
        except asyncio.CancelledError:
            task.cancel()
        return await task

    async def resume_workspace(self, cause: str, *, replace: bool = False) -> None:
        """Resume or replace the workspace's sandbox; if that fails, wait for the person who can fix it."""

        attempts = 0

        async def resume() -> None:
            nonlocal attempts
            attempts += 1
            patient = attempts <= _PATIENT_RESUMES
            await (self._workspace.replace(cause) if replace else self._workspace.resume(cause, patient=patient))

        try:
            await self._through_outages(resume, is_resume=True)
        except ActivityError as error:
            end_if_cancelled()
            await self.wait_for_person(*responsible_party(error), verified=False)

    async def wait_for_founder(self, reason: str, *, note: TurnNote | None = None) -> None:
        """Wait for the founder, unless they have pending input: that comes first. The agent is told the note."""
        if not self._state.has_pending_input:
            await self.wait_for_person(WaitingFor.FOUNDER, reason, note=note)
        elif note is not None:
            self._state.notes.append(note)

    async def wait_for_person(
        self,
        waiting_for: WaitingFor,
        reason: str,
        *,
        verified: bool = True,
        is_question: bool = True,
        note: TurnNote | None = None,
    ) -> None:
        """Wait until a person wakes the build. A wait for the founder also ends with any new input from them.

        Args:
            waiting_for: who has to act.
            reason: what that person reads.
            verified: whether the workspace is known to be sound; otherwise no snapshot of it is taken.
            is_question: a request to finish answers it. That cures no step that has failed, so there it is False.
            note: what the agent is told afterwards.
        """
        rest = Rest(
            before=self._state.status,
            waiting_for=waiting_for,
            reason=reason,
            input_beyond=self._state.input_count,
            notes=[note] if note else [],
        )
        if waiting_for is WaitingFor.FOUNDER:
            # A wake sent before the question was asked does not answer it; a request to finish answers any question.
            self._state.wake = self._state.finish and (is_question or not self.is_finishing)
        if self._workspace.is_open and verified and not self._workspace.is_paused:
            await best_effort(self._workspace.snapshot(SnapshotReason.WAIT, policies.SNAPSHOT_IF_POSSIBLE))
        if self._workspace.is_open:
            await best_effort(self._workspace.pause())
        await self._rest_for_person(rest)

    async def _rest_for_person(self, rest: Rest) -> None:
        """Wait with the sandbox paused, until it is resumed because someone has woken the build."""
        state, around = self._state, self._state.rest
        while True:
            if not rest.over:
                waiting_for = rest.waiting_for or WaitingFor.OPERATOR
                await self._projection.become(Status.NEEDS_INPUT, waiting_for=waiting_for, reason=rest.reason)
                beyond = rest.input_beyond if waiting_for is WaitingFor.FOUNDER else None
                what = f"waiting for {waiting_for.replace('_', ' ')}"
                self._note_rest(rest, around)
                self._continue_as_new_if_long()
                await wait_for_wake(state, None, what, input_beyond=beyond, upgrade=self._upgrade)
            rest = rest.model_copy(update={"over": True})
            self._note_rest(rest, around)
            input_count = state.input_count
            try:
                if self._workspace.is_open:
                    await self._through_outages(
                        lambda: self._workspace.resume("someone woke the build"), is_resume=True
                    )
                break
            except ActivityError as error:
                end_if_cancelled()
                waiting_for, reason = responsible_party(error)
                changes = {"waiting_for": waiting_for, "reason": reason, "input_beyond": input_count, "over": False}
                rest = rest.model_copy(update=changes)
        state.rest = around
        await self._projection.become(rest.before)
        state.notes += rest.notes

    def _note_rest(self, rest: Rest, around: Rest | None = None) -> None:
        """Let a new run go on with this wait. If it is part of another one, the new run ends both."""
        if around is not None:
            rest = rest.model_copy(update={"before": around.before, "notes": [*around.notes, *rest.notes]})
        self._state.rest = rest

    def _continue_as_new_if_long(self) -> None:
        """Wait in a new run if the history is long: each wake that does not help makes it longer."""
        is_long = self._upgrade.is_long(self._rests_in_run)
        if is_long and self._upgrade.is_possible and workflow.patched(patches.LONG_RESTS.id):
            self._upgrade.continue_as_new()
        self._rests_in_run += 1

    async def rest_on(self) -> None:
        """Wait on if the run before has continued as new in a wait. The sandbox stays paused."""
        self._projection.describe()
        rest, self._state.rest = self._state.rest, None
        if rest is None:
            return
        if rest.stop is not None:
            await self._rest_for_budget(rest)
        else:
            await self._rest_for_person(rest)

    async def wait_for_budget(
        self, stop: BudgetCheck, *, patient: bool = False, asleep: bool = False, note: TurnNote | None = None
    ) -> None:
        """Stop until the build may spend again: asleep until a new UTC day, or waiting for the person who can help.

        A request to finish ends the wait, too, because checking the product costs no budget: unless the account is on
        hold, or the wait is `patient`. Every wake checks the budget again, and a changed budget or standing counts as a
        wake. The workspace is snapshotted first and its sandbox paused, unless it is `asleep` already. Afterwards the
        agent is told the note.

        Raises:
            ApplicationError: the build's policy is to stop instead of sleeping.
        """
        rest = Rest(before=self._state.status, stop=stop, patient=patient, notes=[note] if note else [])
        self._fail_if_stop_policy(stop)  # before the sandbox is paused: the end takes its own snapshot
        if self._workspace.is_open and not asleep:
            await self.retry_with_help(lambda: self._workspace.snapshot(SnapshotReason.SLEEP), in_sandbox=True)
            await self.retry_with_help(self._workspace.pause)
        self._state.answered = None  # nothing else is left to do about the turn
        await self._rest_for_budget(rest)

    async def _rest_for_budget(self, rest: Rest) -> None:
        """Wait with the sandbox paused, until it is resumed because there is budget."""
        state, woken = self._state, False
        while (
            not rest.over
            and (stop := rest.stop) is not None
            and stop.exhausted
            and (rest.patient or not self.may_finish(stop.outcome))
        ):
            self._fail_if_stop_policy(stop)
            self._note_rest(rest)
            self._continue_as_new_if_long()
            if stop.day is not None and stop.day < workflow.now().date():
                woken = False  # a new day has begun meanwhile, and its budget has not been checked
            elif stop.outcome is ThinkOutcome.ON_HOLD:
                woken = await self._wait_while_on_hold(stop)
            elif stop.outcome is ThinkOutcome.TOO_SMALL:
                woken = await self._wait_for_renewal(stop)
            elif state.nights >= self._max_nights() and not stop.service_limit:
                woken = await self._ask_after_last_night()
            else:
                woken = await self._sleep_until_morning(stop, repeated=rest.repeated)
            stop = await self.retry_with_help(self.check_budget)
            rest = rest.model_copy(update={"stop": stop, "repeated": True})
        self._note_rest(rest.model_copy(update={"over": True}))
        if self._workspace.is_open:
            await self.resume_workspace("woken by a signal" if woken else "a new day's budget")
        state.rest = None
        await self._projection.become(rest.before)
        state.notes += rest.notes

    def may_finish(self, stop: ThinkOutcome | None) -> bool:
        """Whether the founder has asked to finish, and what stops the build allows that."""
        return stop is not ThinkOutcome.ON_HOLD and self.is_finishing

    async def _sleep_until_morning(self, stop: BudgetCheck, *, repeated: bool) -> bool:
        """Sleep until the next UTC day or a wake; returns whether it was a wake."""
        short = _STILL_SHORT_OF_BUDGET if repeated else _SHORT_OF_BUDGET
        reason = stop.reason if stop.service_limit else short
        wakes_at = self._morning_of(next_utc_midnight(workflow.now()))
        await self._projection.become(Status.SLEEPING, reason=reason, wakes_at=wakes_at)
        woken = await wait_for_wake(
            self._state,
            wakes_at - workflow.now(),
            "sleeping until the next UTC day",
            "money_changed",
            upgrade=self._upgrade,
        )
        self._state.nights += not woken and not stop.service_limit
        return woken

    def _morning_of(self, midnight: datetime) -> datetime:
        """When this build wakes for the day that begins at `midnight`: not all builds wake at once."""
        context = self._state.context
        if context is None or not workflow.patched(patches.MORNINGS.id):
            return midnight
        return midnight + morning_delay(UUID(self._build.build_id), context.morning_seconds)

    async def _ask_after_last_night(self) -> bool:
        """Ask the founder whether to continue so slow a build; any input from now on means yes."""
        input_count = self._state.input_count
        nights = "a night" if self._state.nights == 1 else f"{self._state.nights} nights"
        reason = (
            f"The build has slept for {nights} and is not finished. Wake it to continue for as many more, or cancel "
            "it: its work is kept either way."
        )
        await self._projection.become(Status.NEEDS_INPUT, waiting_for=WaitingFor.FOUNDER, reason=reason)
        await wait_for_wake(self._state, None, "waiting for founder", input_beyond=input_count, upgrade=self._upgrade)
        self._state.nights = 0
        return True

    async def _wait_for_renewal(self, stop: BudgetCheck) -> bool:
        """Wait for more budget than a day of this plan has; the next billing cycle may bring it."""
        wakes_at = next_utc_midnight(workflow.now())
        if stop.renews_on is not None:
            wakes_at = max(wakes_at, datetime.combine(stop.renews_on, time(), UTC))
        wakes_at = self._morning_of(wakes_at)
        await self._projection.become(
            Status.NEEDS_INPUT, waiting_for=WaitingFor.FOUNDER, reason=stop.reason, wakes_at=wakes_at
        )
        return await wait_for_wake(
            self._state,
            wakes_at - workflow.now(),
            "waiting for the next billing cycle",
            "money_changed",
            upgrade=self._upgrade,
        )

    async def _wait_while_on_hold(self, stop: BudgetCheck) -> bool:
        """Wait until the account is active again, or builds are switched on again."""
        waiting_for = stop.waiting_for or WaitingFor.OPERATOR
        await self._projection.become(Status.NEEDS_INPUT, waiting_for=waiting_for, reason=stop.reason)
        what = f"waiting for {waiting_for.replace('_', ' ')}"
        return await wait_for_wake(self._state, None, what, "money_changed", upgrade=self._upgrade)

    def _max_nights(self) -> int:
        context = self._state.context
        return MAX_NIGHTS if context is None else context.max_nights

    def _fail_if_stop_policy(self, stop: BudgetCheck) -> None:
        context = self._state.context
        stops = context is not None and context.sleep_policy is SleepPolicy.STOP
        if stops and stop.exhausted and stop.outcome is not ThinkOutcome.ON_HOLD and not stop.service_limit:
            raise ApplicationError(_STOPPED_BY_POLICY, type="BuildFailed", non_retryable=True)

    async def wait_for_settlements(self, waits: int) -> None:
        """Wait for the calls of the user's other builds to be settled; `waits` earlier waits make this one longer."""
        moment = min(_SETTLEMENT_WAIT * 2 ** min(waits, 10), _SETTLEMENT_WAIT_MAX)
        what = "waiting for the calls of other builds"
        await wait_for_wake(self._state, moment, what, "money_changed", upgrade=self._upgrade)

    async def wait_for_rate(self, seconds: int) -> None:
        """Wait until the model's API may take a call again; not all builds at once ask then."""
        moment = timedelta(seconds=seconds * workflow.random().uniform(0.75, 1.25))
        await wait_for_wake(self._state, moment, "waiting for the model's rate limit", upgrade=self._upgrade)

    async def wait_for_slot(self) -> bool:
        """Wait as `queued` until one of the user's slots is free for this build; check every hour, whatever happens.

        Returns:
            False if the history is long, so that the next run of the workflow has to go on waiting.
        """
        last: SlotClaim | None = None
        for _ in range(_SLOT_CHECKS_PER_RUN):
            change = self._projection.next(Status.STARTING) if workflow.patched(patches.BEGINS.id) else None
            claim = await workflow.execute_activity_method(
                SlotActivities.claim_slot,
                ClaimSlot.sparse(build_id=self._build.build_id, change=change),
                **policies.DATABASE,
                summary="claim a slot",
            )
            if claim.claimed:
                if claim.recorded and change is not None:
                    self._projection.recorded(change)
                return True
            if claim != last:
                last = claim
                await self._projection.become(Status.QUEUED, reason=_queue_reason(claim))
            await wait_for_wake(
                self._state,
                _SLOT_CHECK_INTERVAL,
                "waiting for a slot",
                "admit",
                "money_changed",
                upgrade=self._upgrade,
            )
        end_if_cancelled()  # a new run would not see a cancel of this one
        return False

    async def check_budget(self) -> BudgetCheck:
        """Whether the build may continue."""
        return await workflow.execute_activity_method(
            ThinkActivities.check_budget, self._budget_question(), **policies.DATABASE, summary="budget"
        )

    async def prepare_build(self) -> PreparedBuild:
        """What the build starts with, and whether its budget lets it start."""
        return await workflow.execute_activity_method(
            ContextActivities.prepare_build,
            self._budget_question(),
            **policies.DATABASE,
            summary="brief, interview, model and budget",
        )

    def _budget_question(self) -> CheckBudget:
        state = self._state
        return CheckBudget.sparse(
            build_id=self._build.build_id, turn=max(1, state.turn), last_wind_down=state.last_wind_down
        )


def _queue_reason(claim: SlotClaim) -> str:
    """Why a build is queued, for its founder."""
    others = [f"{count} {what}" for count, what in ((claim.running, "running"), (claim.ahead, "queued")) if count]
    return f"Your other builds come first: {', '.join(others)}. This one starts automatically when your plan has room."


async def best_effort(step: Awaitable[None]) -> None:
    """Do a step whose failure stops nothing: the step reports it itself, or a later one covers it."""
    try:
        await step
    except ActivityError as error:
        note_failure(error)


def note_failure(error: ActivityError) -> None:
    """Log that a step has failed whose failure stops nothing.

    Raises:
        ActivityError: the same error, if it is a cancellation.
    """
    if is_cancelled_exception(error):
        raise error
    workflow.logger.warning("a best-effort step failed", extra={"error": error})
