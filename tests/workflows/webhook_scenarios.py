"""The paths of a delivery to a webhook."""

import uuid

from clients.cipher import cipher_of
from db.models import WebhookDelivery
from db.organisations import list_organisations
from db.transaction import transaction
from db.users import ensure_user
from db.webhooks import add_test
from domain.names import delivery_workflow_id
from domain.webhooks import CHOICES
from services.webhooks import create_webhook
from tests.harness.receiver import answer, receiving
from tests.harness.wait import wait_until
from tests.harness.worker import WorkerHarness
from tests.workflows.scenarios import EndedWorkflow, Scenario

_OWNER = "ada"


async def webhook_retried(harness: WorkerHarness) -> list[EndedWorkflow]:
    """A receiver fails once and then accepts the message."""
    async with receiving() as receiver:
        receiver.answers = [answer(503), answer(204)]
        async with transaction(harness.sessions) as tx:
            await ensure_user(tx, _OWNER)
            [own] = await list_organisations(tx, _OWNER)
            webhook, _ = await create_webhook(
                tx,
                cipher_of(harness.settings),
                _OWNER,
                own.organisation.id,
                url=receiver.url,
                topics=CHOICES,
                description="",
            )
            delivery_id = (await add_test(tx, webhook.id)).id

        async def has_ended() -> bool:
            return (await _delivery(harness, delivery_id)).ended_at is not None

        await wait_until(has_ended)
        delivery = await _delivery(harness, delivery_id)
        assert (delivery.state, delivery.attempts, len(receiver.got)) == ("delivered", 2, 2)
        workflow_id = delivery_workflow_id(delivery_id)
        await harness.client.get_workflow_handle(workflow_id).result()
        return [EndedWorkflow(workflow_id, "done")]


async def _delivery(harness: WorkerHarness, delivery_id: uuid.UUID) -> WebhookDelivery:
    async with transaction(harness.sessions) as tx:
        return await tx.session.get_one(WebhookDelivery, delivery_id)


WEBHOOK_SCENARIOS = [
    Scenario(
        webhook_retried.__name__,
        "a receiver of a webhook fails once, and accepts the second attempt",
        webhook_retried,
        {"secrets_key": "main:c2l4dGVlbiBieXRlcyBvciBtb3JlLCBmb3IgdGVzdHM=", "webhook_private_hosts": "127.0.0.1"},
        own_database=True,
    )
]
