"""Webhooks: addresses of an organisation that are told when a build sleeps, wakes, needs input, is ready or fails."""

import uuid
from datetime import timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from api.deps import CurrentUserId, ResourcesDep, TransactionDep, expensive, needs
from api.paging import DeliveriesPage
from api.responses import TAKES_BODY, problems
from api.webhook_schemas import (
    DeliveryList,
    DeliveryOut,
    MadeWebhookOut,
    NewWebhook,
    SecretRotation,
    WebhookChange,
    WebhookList,
    WebhookOut,
)
from clients.cipher import cipher_of
from clients.webhook_sender import WebhookSender
from db.organisations import list_organisations
from db.transaction import request_transaction
from db.webhooks import list_deliveries, list_webhooks
from domain.identity import Scope
from services import webhooks
from settings import Settings

router = APIRouter(prefix="/webhooks", tags=["webhooks"])


def _sender(settings: Settings) -> WebhookSender:
    return WebhookSender(settings.webhook_private_hosts or ())


@router.post(
    "",
    status_code=201,
    summary="Make a webhook",
    dependencies=[needs(Scope.ACCOUNT_WRITE), expensive],
    responses=problems(*TAKES_BODY, 404, 409),
)
async def create_webhook(new: NewWebhook, user_id: CurrentUserId, resources: ResourcesDep) -> MadeWebhookOut:
    """Make a webhook of an organisation that you own. Each message is signed as [Standard
    Webhooks](https://www.standardwebhooks.com) says, with the secret that is in the response and nowhere else."""
    await _sender(resources.settings).check(new.url)
    async with request_transaction(resources.sessions) as tx:
        org_id = new.organisation_id or (await list_organisations(tx, user_id))[0].organisation.id
        webhook, secret = await webhooks.create_webhook(
            tx,
            cipher_of(resources.settings),
            user_id,
            org_id,
            url=new.url,
            topics=new.topics,
            description=new.description,
        )
    return MadeWebhookOut(webhook=WebhookOut.of(webhook), secret=secret)


@router.get("", summary="List webhooks", dependencies=[needs(Scope.ACCOUNT_READ)], responses=problems(422))
async def list_of_user(user_id: CurrentUserId, tx: TransactionDep) -> WebhookList:
    """The webhooks of all organisations that you own."""
    return WebhookList(webhooks=[WebhookOut.of(each) for each in await list_webhooks(tx, user_id)])


@router.patch(
    "/{webhook_id}",
    summary="Change a webhook",
    dependencies=[needs(Scope.ACCOUNT_WRITE), expensive],
    responses=problems(*TAKES_BODY, 404),
)
async def change_webhook(
    webhook_id: uuid.UUID, change: WebhookChange, user_id: CurrentUserId, resources: ResourcesDep
) -> WebhookOut:
    """Change the address or the topics of a webhook, or disable or enable it."""
    if change.url is not None:
        await _sender(resources.settings).check(change.url)
    async with request_transaction(resources.sessions) as tx:
        changed = await webhooks.change_webhook(
            tx,
            user_id,
            webhook_id,
            url=change.url,
            topics=change.topics,
            description=change.description,
            enabled=change.enabled,
        )
        return WebhookOut.of(changed)


@router.post(
    "/{webhook_id}/rotate",
    summary="Rotate a webhook's secret",
    dependencies=[needs(Scope.ACCOUNT_WRITE)],
    responses=problems(*TAKES_BODY, 404, 409),
)
async def rotate_secret(
    webhook_id: uuid.UUID, rotation: SecretRotation, user_id: CurrentUserId, resources: ResourcesDep, tx: TransactionDep
) -> MadeWebhookOut:
    """Give a webhook a new secret, which is in the response and nowhere else. During the overlap, each message has two
    signatures, one of the new secret and one of the old: receivers change over without losing one."""
    overlap = timedelta(seconds=rotation.overlap_seconds)
    webhook, secret = await webhooks.rotate_secret(tx, cipher_of(resources.settings), user_id, webhook_id, overlap)
    return MadeWebhookOut(webhook=WebhookOut.of(webhook), secret=secret)


@router.delete(
    "/{webhook_id}",
    status_code=204,
    summary="Delete a webhook",
    dependencies=[needs(Scope.ACCOUNT_WRITE)],
    responses=problems(404, 422),
)
async def delete_webhook(webhook_id: uuid.UUID, user_id: CurrentUserId, tx: TransactionDep) -> Response:
    """Delete a webhook with its deliveries. Nothing more is sent to it."""
    await webhooks.delete_webhook(tx, user_id, webhook_id)
    return Response(status_code=204)


@router.post(
    "/{webhook_id}/test",
    status_code=202,
    summary="Test a webhook",
    dependencies=[needs(Scope.ACCOUNT_WRITE)],
    responses=problems(404, 409, 422),
)
async def test_webhook(webhook_id: uuid.UUID, user_id: CurrentUserId, tx: TransactionDep) -> DeliveryOut:
    """Send a message of the topic `webhook.test`. The list of deliveries says what came of it."""
    return DeliveryOut.of(await webhooks.send_test(tx, user_id, webhook_id))


@router.get(
    "/{webhook_id}/deliveries",
    summary="List deliveries",
    dependencies=[needs(Scope.ACCOUNT_READ)],
    responses=problems(404, 422),
)
async def deliveries(
    webhook_id: uuid.UUID,
    user_id: CurrentUserId,
    tx: TransactionDep,
    page: DeliveriesPage,
    state: Annotated[
        Literal["queued", "sending", "delivered", "dead"] | None, Query(description="Only those in this state.")
    ] = None,
) -> DeliveryList:
    """What was sent to a webhook, the newest first. Kept for 30 days after a delivery has ended."""
    await webhooks.require_webhook(tx, user_id, webhook_id, locked=False)
    found = await list_deliveries(tx, webhook_id, page.limit + 1, page.after, state)
    shown = found[: page.limit]
    return DeliveryList(
        deliveries=[DeliveryOut.of(each) for each in shown],
        next_cursor=page.next_cursor(shown[-1] if len(found) > len(shown) else None),
    )


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/replay",
    status_code=202,
    summary="Deliver again",
    dependencies=[needs(Scope.ACCOUNT_WRITE)],
    responses=problems(404, 409, 422),
)
async def replay_delivery(
    webhook_id: uuid.UUID, delivery_id: uuid.UUID, user_id: CurrentUserId, tx: TransactionDep
) -> DeliveryOut:
    """Send a message again that was delivered or is dead, with the same id."""
    return DeliveryOut.of(await webhooks.replay(tx, user_id, webhook_id, delivery_id))
