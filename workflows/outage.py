"""How a build waits for a dependency: as `waiting`, without a person, until a step can be tried again."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from domain.outage import REASONS, wait_before_retry
    from domain.payloads import LoopState, OutageState
    from domain.status import Dependency, Status

from workflows.projection import Projection
from workflows.wake import wait_for_wake


class Outage:
    """One wait at a time: `wait` before each further attempt, `end` once an attempt has succeeded.

    The wait is part of the build's state. Afterwards the status is what it was before the first one.
    """

    def __init__(self, state: LoopState, projection: Projection) -> None:
        self._state = state
        self._projection = projection

    async def wait(self, dependency: Dependency, *signals: str) -> bool:
        """Become `waiting`, and wait until it is worth another attempt. Each further wait is longer.

        The signals `recovered` and `wake` end the wait, as do those in `signals`: names of flags in the build's state.
        So does time, in case a signal is lost.

        Returns:
            False if the time ran out.

        Raises:
            CancelledError: the build was cancelled.
        """
        state, now = self._state, workflow.now()
        outage = state.outage or OutageState(dependency=dependency, before=state.status, since=now)
        state.outage = outage.model_copy(update={"dependency": dependency, "waits": outage.waits + 1})
        if (state.status, outage.dependency) != (Status.WAITING, dependency):
            await self._projection.become(Status.WAITING, dependency=dependency, reason=REASONS[dependency])
        moment = wait_before_retry(outage.waits, now - outage.since, workflow.random().random())
        return await wait_for_wake(state, moment, f"waiting for the {dependency}", "recovered", *signals)

    async def end(self) -> None:
        """Take the status again that the build had before it waited, if it has waited."""
        outage, self._state.outage = self._state.outage, None
        if outage is not None:
            await self._projection.become(outage.before)
