"""The reaper's workflow, started by a Temporal Schedule: one look at everything that is open."""

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError
from temporalio.types import MethodAsyncNoParam

with workflow.unsafe.imports_passed_through():
    from activities.reaper import ReaperActivities, sum_of
    from domain.names import REAPER_WORKFLOW
    from domain.payloads import ReapResult

from workflows import patches, policies


@workflow.defn(name=REAPER_WORKFLOW)
class ReaperWorkflow:
    """One run of the reaper."""

    @workflow.run
    async def run(self) -> ReapResult:
        """Run the reaper once."""
        if not workflow.patched(patches.REAPER_STEPS.id):
            return await workflow.execute_activity_method(ReaperActivities.reap, **policies.REAP)
        # Builds first: a sandbox is ended once its build's row is closed.
        closed = await _run(ReaperActivities.reap_builds)
        others = await asyncio.gather(
            _run(ReaperActivities.reap_sandboxes),
            _run(ReaperActivities.sweep_store),
            _run(ReaperActivities.repeat_nudges),
        )
        return sum_of([closed, *others])


async def _run(step: MethodAsyncNoParam[ReaperActivities, ReapResult]) -> ReapResult:
    """Run a step. One that fails or hangs does not keep the others from running."""
    try:
        return await workflow.execute_activity_method(step, **policies.REAP_STEP)
    except ActivityError as error:
        workflow.logger.error("a step of the reaper failed", extra={"error": error})
        return ReapResult()
