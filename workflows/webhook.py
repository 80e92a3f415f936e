"""One delivery to a webhook: attempts with growing waits between them, until it is accepted or dead."""

from datetime import datetime, timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.webhooks import WebhookActivities
    from domain.names import UPGRADE, WEBHOOK_WORKFLOW
    from domain.payloads import DeliveryRef

from workflows import policies
from workflows.upgrade import continue_as_new, is_upgrade_due


@workflow.defn(name=WEBHOOK_WORKFLOW)
class WebhookWorkflow:
    """The row says how many attempts were made, so that a new run goes on where another has ended."""

    def __init__(self) -> None:
        self._upgrade = False

    @workflow.signal(name=UPGRADE)
    def upgrade(self) -> None:
        """Move to the version that the workers are to have."""
        self._upgrade = True

    @workflow.run
    async def run(self, request: DeliveryRef) -> None:
        """Attempt until the delivery has ended."""
        if request.due is not None and request.due > workflow.now():
            await self._wait(request, request.due)
        while True:
            attempt = await workflow.execute_activity_method(
                WebhookActivities.deliver_webhook, request, **policies.WEBHOOK
            )
            if attempt.retry_in_seconds is None:
                return
            await self._wait(request, workflow.now() + timedelta(seconds=attempt.retry_in_seconds))

    async def _wait(self, request: DeliveryRef, due: datetime) -> None:
        """Wait for the next attempt. If the workers are to have another version, the next run waits on."""
        try:
            await workflow.wait_condition(
                lambda: self._upgrade and is_upgrade_due(), timeout=due - workflow.now(), timeout_summary="next attempt"
            )
        except TimeoutError:
            return
        continue_as_new(DeliveryRef(delivery_id=request.delivery_id, due=due))
