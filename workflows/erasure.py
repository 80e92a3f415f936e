"""An erasure: ends what runs, deletes what other servers have, and then the rows that say where that was."""

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.erasure import ErasureActivities
    from domain.names import ERASURE_WORKFLOW
    from domain.payloads import ErasureRef

from workflows import policies

_LOOK_AGAIN = timedelta(seconds=1)
"""The first wait before the next look at what is left; each further one is half as long again."""

_LONGEST_WAIT = timedelta(minutes=5)


@workflow.defn(name=ERASURE_WORKFLOW)
class ErasureWorkflow:
    """The rows say what is left, so a new run goes on where another has ended."""

    @workflow.run
    async def run(self, request: ErasureRef) -> None:
        """Go through the steps until one round has left nothing."""
        wait = _LOOK_AGAIN
        while await self._left(request):
            await workflow.sleep(wait)
            wait = min(1.5 * wait, _LONGEST_WAIT)

    async def _left(self, request: ErasureRef) -> int:
        """Take each step, up to the first that leaves something; return how much."""
        for step in (
            ErasureActivities.stop_builds,
            ErasureActivities.end_sandboxes,
            ErasureActivities.erase_objects,
            ErasureActivities.erase_executions,
            ErasureActivities.erase_rows,
        ):
            done = await workflow.execute_activity_method(step, request, **policies.ERASURE)
            if done.left:
                return done.left
        return 0
