"""The reaper's workflow, started by a Temporal Schedule: one pass over every open build."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.reaper import ReaperActivities
    from domain.names import REAPER_WORKFLOW
    from domain.payloads import ReapResult

from workflows import policies


@workflow.defn(name=REAPER_WORKFLOW)
class ReaperWorkflow:
    """One run of the reaper."""

    @workflow.run
    async def run(self) -> ReapResult:
        """Run the reaper once."""
        return await workflow.execute_activity_method(ReaperActivities.reap, **policies.REAP)
