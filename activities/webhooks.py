"""Delivers a message to a webhook: one attempt."""

import uuid

from temporalio import activity

from activities.runtime.errors import application_errors
from clients.cipher import Cipher
from clients.webhook_sender import WebhookSender
from db.session import Sessions
from domain.payloads import DeliveryAttempt, DeliveryRef
from services.webhooks import attempt_delivery


class WebhookActivities:
    """`deliver_webhook`. A receiver may get a message twice, with the same id, if a worker dies in between."""

    def __init__(self, sessions: Sessions, cipher: Cipher, sender: WebhookSender, public_url: str) -> None:
        self._sessions = sessions
        self._cipher = cipher
        self._sender = sender
        self._public_url = public_url

    @activity.defn
    @application_errors
    async def deliver_webhook(self, request: DeliveryRef) -> DeliveryAttempt:
        """Send the message once, and note what came of it."""
        delivery_id = uuid.UUID(request.delivery_id)
        wait = await attempt_delivery(self._sessions, self._cipher, self._sender, delivery_id, self._public_url)
        return DeliveryAttempt(retry_in_seconds=wait)
