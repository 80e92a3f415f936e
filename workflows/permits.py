"""How a build waits for a permit to have its sandbox running: as `waiting`, with a place in the queue."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.permits import PermitActivities
    from domain.payloads import ClaimPermit, LoopState, PermitClaim
    from domain.permits import CHECK_EVERY, CHECK_RARELY, time_to_next_check
    from domain.status import WAITS, Dependency, Status

from workflows import policies
from workflows.failures import end_if_cancelled, missing_permit
from workflows.projection import Projection
from workflows.upgrade import Upgrade
from workflows.wake import wait_for_wake

T = TypeVar("T")


class PermitQueue:
    """The build's place in the queue. Activities that need a permit take it; this is what follows if they can't."""

    def __init__(self, build_id: str, state: LoopState, projection: Projection, upgrade: Upgrade) -> None:
        self._build_id = build_id
        self._state = state
        self._projection = projection
        self._upgrade = upgrade
        self._checks_in_run = 0

    async def when_permitted(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do a step. If it finds no permit, wait until the build holds one, and do it again.

        Raises:
            ActivityError: it failed for another reason.
            CancelledError: the build was cancelled.
        """
        refusals = 0
        while True:
            try:
                result = await step()
            except ActivityError as error:
                end_if_cancelled()
                claim = missing_permit(error)
                if claim is None:
                    raise
            else:
                await self._end()  # if an earlier run has waited
                return result
            refusals = refusals + 1 if claim.refused else 0
            await self._wait(claim, refusals)

    async def _wait(self, claim: PermitClaim, refusals: int) -> None:
        """Wait until the build holds a permit. Its status is then what it was, unless it only begins to work again."""
        state, shown, longest = self._state, None, CHECK_EVERY
        before = state.before_permit or state.status
        state.before_permit = before
        while not claim.held:
            self._continue_as_new_if_long()
            if claim.reason != shown:
                shown = claim.reason
                await self._projection.become(Status.WAITING, dependency=Dependency.CAPACITY, reason=shown)
            moment = time_to_next_check(refusals, workflow.random().random(), longest)
            await wait_for_wake(state, moment, "waiting for a free sandbox", "permit_free", upgrade=self._upgrade)
            # In a turn it can't continue as new, so it checks rarely; the signal comes at once.
            longest = CHECK_RARELY if self._is_long() else CHECK_EVERY
            patience = int((longest - CHECK_EVERY).total_seconds())
            claim = await claim_permit(ClaimPermit.sparse(build_id=self._build_id, patience_seconds=patience))
            self._checks_in_run += 1
        await self._end()

    async def _end(self) -> None:
        before, self._state.before_permit = self._state.before_permit, None
        if before is not None and before not in WAITS:
            await self._projection.become(before)

    def _is_long(self) -> bool:
        return self._upgrade.is_long(self._checks_in_run)

    def _continue_as_new_if_long(self) -> None:
        """Wait in a new run if the history is long. Only before the first sandbox: a turn may be open later."""
        if self._state.sandbox is None and self._is_long():
            self._upgrade.continue_as_new()


async def claim_permit(request: ClaimPermit) -> PermitClaim:
    """Take a permit if one is free, or check the place in the queue."""
    return await workflow.execute_activity_method(
        PermitActivities.claim_permit, request, **policies.DATABASE, summary="a permit for a sandbox"
    )
