"""The prober's workflow, started by a Temporal Schedule: one look at the dependencies that are down."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.prober import ProberActivities
    from domain.names import PROBER_WORKFLOW
    from domain.payloads import ProbeResult

from workflows import policies


@workflow.defn(name=PROBER_WORKFLOW)
class ProberWorkflow:
    """One run of the prober."""

    @workflow.run
    async def run(self) -> ProbeResult:
        """Run the prober once."""
        return await workflow.execute_activity_method(ProberActivities.probe, **policies.PROBE)
