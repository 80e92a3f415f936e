"""An act of an operator on many builds: one batch after the other, until each build was reached."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.bulk import BulkActivities
    from domain.names import BULK_WORKFLOW, GO_ON
    from domain.payloads import BulkRef

from workflows import policies, upgrade


@workflow.defn(name=BULK_WORKFLOW)
class BulkWorkflow:
    """The rows say which builds are left, so that a new run goes on where another has ended."""

    def __init__(self) -> None:
        self._is_resumed = False

    @workflow.signal(name=GO_ON)
    def go_on(self) -> None:
        """The row says again that it runs."""
        self._is_resumed = True

    @workflow.run
    async def run(self, request: BulkRef) -> None:
        """Do batches until no build is left, or until an operator has stopped the run."""
        for _ in range(request.batches):
            self._is_resumed = False
            batch = await workflow.execute_activity_method(BulkActivities.carry_out_batch, request, **policies.BULK)
            if batch.is_over and not self._is_resumed:
                return
            if upgrade.is_upgrade_due():
                break
        upgrade.continue_as_new(request)
