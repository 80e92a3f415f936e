"""How a build waits: for a new day's budget, and for people. It waits as long as it takes and loses nothing."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.think import ThinkActivities
    from domain.budget import next_utc_midnight
    from domain.payloads import BudgetCheck, BuildRef, LoopState
    from domain.status import Status, WaitingFor

from workflows import policies
from workflows.failures import end_if_cancelled, reason_of, whom_to_ask
from workflows.projection import Projection
from workflows.workspace import Workspace

T = TypeVar("T")


class Waiting:
    """Waits with the sandbox paused; afterwards the workspace is verified and the status is what it was before."""

    def __init__(self, build_id: str, state: LoopState, shown: Projection, workspace: Workspace) -> None:
        self._build = BuildRef(build_id=build_id)
        self._state = state
        self._shown = shown
        self._workspace = workspace

    async def asking_people(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do a step; where it fails for a reason that a person can mend, wait for that person and do it again.

        Raises:
            ActivityError: nobody can mend it, or the build was cancelled.
            CancelledError: the build was cancelled.
        """
        while True:
            end_if_cancelled()
            try:
                result = await step()
            except ActivityError as error:
                end_if_cancelled()
                waiting_for, reason = whom_to_ask(error)
            else:
                end_if_cancelled()
                return result
            await self.for_person(waiting_for, reason)

    async def resuming(self, cause: str) -> None:
        """Resume the workspace; where that fails, wait for the person who can mend it."""
        try:
            await self._workspace.resume(cause)
        except ActivityError as error:
            end_if_cancelled()
            await self.for_person(*whom_to_ask(error), verified=False)

    async def for_person(self, waiting_for: WaitingFor, reason: str, *, verified: bool = True) -> None:
        """Wait until somebody wakes the build. A workspace that is not verified is not saved over the snapshot."""
        before = self._state.status
        if self._workspace.is_open and verified:
            await trying(self._workspace.snapshot("wait", policies.SNAPSHOT_IF_POSSIBLE))
        if self._workspace.is_open:
            await trying(self._workspace.pause())
        while True:
            await self._shown.become(Status.NEEDS_INPUT, waiting_for=waiting_for, reason=reason)
            await self._for_wake(None, f"waiting for {waiting_for.replace('_', ' ')}")
            try:
                if self._workspace.is_open:
                    await self._workspace.resume("a person asked the build to go on")
                break
            except ActivityError as error:
                end_if_cancelled()
                waiting_for, reason = whom_to_ask(error)
        await self._shown.become(before)

    async def for_budget(self) -> None:
        """Sleep until there is money again: a new UTC day, or a wake that finds some."""
        before, reason = self._state.status, "Today's budget is used up."
        await self.asking_people(lambda: self._workspace.snapshot("sleep"))
        await self.asking_people(self._workspace.pause)
        while True:
            wakes_at = next_utc_midnight(workflow.now())
            await self._shown.become(Status.SLEEPING, reason=reason, wakes_at=wakes_at)
            woken = await self._for_wake(wakes_at - workflow.now(), "sleeping until the next UTC day")
            if not (await self.asking_people(self._check_budget)).exhausted:
                break
            reason = "Looked again, but today's budget is still used up."
        cause = "woken by a signal" if woken else "a new day's budget"
        await self.resuming(cause)
        await self._shown.become(before)

    async def _check_budget(self) -> BudgetCheck:
        return await workflow.execute_activity_method(
            ThinkActivities.check_budget, self._build, **policies.DATABASE, summary="budget"
        )

    async def _for_wake(self, at_most: timedelta | None, summary: str) -> bool:
        """Wait for the wake signal; False when the time ran out. The flag is cleared before anything is looked at."""
        end_if_cancelled()
        try:
            await workflow.wait_condition(lambda: self._state.wake, timeout=at_most, timeout_summary=summary)
        except TimeoutError:
            return False
        finally:
            self._state.wake = False
        return True


async def trying(step: Awaitable[None]) -> None:
    """Do a step whose failure stops nothing: the step tells of it itself, or a later one makes up for it."""
    try:
        await step
    except ActivityError as error:
        if is_cancelled_exception(error):
            raise
        workflow.logger.warning("a step failed that stops nothing", extra={"error": reason_of(error)})
