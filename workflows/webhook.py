"""One delivery to a webhook: attempts with growing waits between them, until it is accepted or dead."""

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.webhooks import WebhookActivities
    from domain.names import WEBHOOK_WORKFLOW
    from domain.payloads import DeliveryRef

from workflows import policies


@workflow.defn(name=WEBHOOK_WORKFLOW)
class WebhookWorkflow:
    """The row says how many attempts were made, so that a new run goes on where another has ended."""

    @workflow.run
    async def run(self, request: DeliveryRef) -> None:
        """Attempt until the delivery has ended."""
        while True:
            attempt = await workflow.execute_activity_method(
                WebhookActivities.deliver_webhook, request, **policies.WEBHOOK
            )
            if attempt.retry_in_seconds is None:
                return
            await workflow.sleep(timedelta(seconds=attempt.retry_in_seconds))
