"""Webhooks: made and changed by an organisation's owners; their deliveries are started from the rows."""

import asyncio
import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import structlog

from clients.build_workflows import BuildWorkflows
from clients.cipher import Cipher, Sealed
from clients.webhook_sender import WebhookSender
from db import webhooks
from db.formats import runs_older_worker
from db.models import Webhook, WebhookDelivery
from db.organisations import lock_members
from db.session import Sessions
from db.transaction import Transaction, transaction
from db.webhooks import ToSend
from domain.audit import Action
from domain.errors import Conflict, NoSecretsKey, NotFound, Refused, SecretUnreadable
from domain.identity import Role
from domain.webhooks import MAX_WEBHOOKS, OVERLAP, Topic, new_secret, wait_after
from services.audit import record
from services.organisations import require_organisation
from services.product_secrets import Rotation

FIRST_SCHEMA = 34
"""The first version of the schema whose workers deliver to webhooks."""

_LOOK_SECONDS = 2.0
_BATCH = 100
_OLD_EVERY_SECONDS = 3600.0

_log = structlog.get_logger(__name__)


# ---- by owners


async def create_webhook(
    tx: Transaction,
    cipher: Cipher,
    user_id: str,
    org_id: uuid.UUID,
    *,
    url: str,
    topics: Sequence[Topic],
    description: str,
) -> tuple[Webhook, str]:
    """Make a webhook; returns it with its secret, which can't be read again.

    The caller has checked the URL with `WebhookSender.check`, which waits for name servers and so needs no transaction.

    Raises:
        NotFound, Refused: the user is not a member of the organisation, or not an owner.
        NoSecretsKey: there is no key to encrypt the secret with.
        Conflict: the organisation has as many webhooks as it may.
    """
    own = await require_organisation(tx, user_id, org_id)
    if own.role is not Role.OWNER:
        raise Refused(f"Only owners of {own.organisation.name} may see and change its webhooks. Ask one of them.")
    if not cipher.key_id:
        raise NoSecretsKey
    await lock_members(tx, org_id)
    if await webhooks.count_webhooks(tx, org_id) >= MAX_WEBHOOKS:
        raise Conflict(f"The organisation has {MAX_WEBHOOKS} webhooks, the most it may have. Delete one first.")
    webhook_id, secret = uuid.uuid4(), new_secret()
    sealed = cipher.seal(secret, context_of(webhook_id))
    webhook = Webhook(
        id=webhook_id,
        org_id=org_id,
        url=url,
        topics=sorted(set(topics)),
        description=description,
        ciphertext=sealed.ciphertext,
        key_id=sealed.key_id,
        created_by=user_id,
    )
    await webhooks.add_webhook(tx, webhook)
    await record(tx, Action.WEBHOOK_CREATE, org_id=org_id, webhook_id=webhook_id)
    return webhook, secret


async def change_webhook(
    tx: Transaction,
    user_id: str,
    webhook_id: uuid.UUID,
    *,
    url: str | None = None,
    topics: Sequence[Topic] | None = None,
    description: str | None = None,
    enabled: bool | None = None,
) -> Webhook:
    """Change what is not None. The caller has checked the URL with `WebhookSender.check`.

    Raises:
        NotFound: there is no such webhook in an organisation that the user owns.
    """
    webhook = await require_webhook(tx, user_id, webhook_id)
    if url is not None:
        webhook.url = url
    if topics is not None:
        webhook.topics = sorted(set(topics))
    if description is not None:
        webhook.description = description
    if enabled is not None:
        webhook.disabled_at = None if enabled else webhook.disabled_at or datetime.now(UTC)
        webhook.disabled_reason = None
    changes = {"url": url, "topics": topics, "description": description, "enabled": enabled}
    changed = [name for name, value in changes.items() if value is not None]
    await record(tx, Action.WEBHOOK_CHANGE, org_id=webhook.org_id, webhook_id=webhook_id, changed=changed)
    return webhook


async def delete_webhook(tx: Transaction, user_id: str, webhook_id: uuid.UUID) -> None:
    """Delete a webhook. Deliveries that have not ended are not made any more.

    Raises:
        NotFound: there is no such webhook in an organisation that the user owns.
    """
    webhook = await require_webhook(tx, user_id, webhook_id)
    await record(tx, Action.WEBHOOK_DELETE, org_id=webhook.org_id, webhook_id=webhook_id)
    await webhooks.remove_webhook(tx, webhook)


async def rotate_secret(
    tx: Transaction, cipher: Cipher, user_id: str, webhook_id: uuid.UUID, overlap: timedelta = OVERLAP
) -> tuple[Webhook, str]:
    """Give a webhook a new secret; returns it, and it can't be read again. The old one signs too during the overlap. If
    an earlier rotation's overlap has not ended, it ends now: at most two secrets sign.

    Raises:
        NotFound: there is no such webhook in an organisation that the user owns.
        NoSecretsKey: there is no key to encrypt the secret with.
    """
    webhook = await require_webhook(tx, user_id, webhook_id)
    if not cipher.key_id:
        raise NoSecretsKey
    if overlap:
        webhook.old_ciphertext, webhook.old_key_id = webhook.ciphertext, webhook.key_id
        webhook.old_until = datetime.now(UTC) + overlap
    else:
        webhook.old_ciphertext = webhook.old_key_id = webhook.old_until = None
    secret = new_secret()
    sealed = cipher.seal(secret, context_of(webhook_id))
    webhook.ciphertext, webhook.key_id = sealed.ciphertext, sealed.key_id
    await record(
        tx,
        Action.WEBHOOK_ROTATE,
        org_id=webhook.org_id,
        webhook_id=webhook_id,
        overlap_seconds=round(overlap.total_seconds()),
    )
    return webhook, secret


async def send_test(tx: Transaction, user_id: str, webhook_id: uuid.UUID) -> WebhookDelivery:
    """Queue a delivery that only shows that the webhook works.

    Raises:
        NotFound: there is no such webhook in an organisation that the user owns.
        Conflict: it is disabled.
    """
    webhook = await require_webhook(tx, user_id, webhook_id)
    _require_enabled(webhook)
    await record(tx, Action.WEBHOOK_TEST, org_id=webhook.org_id, webhook_id=webhook_id)
    return await webhooks.add_test(tx, webhook_id)


async def replay(tx: Transaction, user_id: str, webhook_id: uuid.UUID, delivery_id: uuid.UUID) -> WebhookDelivery:
    """Deliver again what has ended, with the same id, so that a receiver can tell that it is the same message.

    Raises:
        NotFound: there is no such delivery of a webhook in an organisation that the user owns.
        Conflict: it has not ended, or the webhook is disabled.
    """
    webhook = await require_webhook(tx, user_id, webhook_id)
    _require_enabled(webhook)
    delivery = await webhooks.lock_delivery(tx, webhook_id, delivery_id)
    if delivery is None:
        raise NotFound(f"The webhook has no delivery {delivery_id}.")
    if delivery.ended_at is None:
        raise Conflict("This delivery has not ended: it is tried again by itself.")
    await record(tx, Action.WEBHOOK_REPLAY, org_id=webhook.org_id, webhook_id=webhook_id, delivery_id=delivery_id)
    return await webhooks.queue_again(tx, delivery)


async def require_webhook(tx: Transaction, user_id: str, webhook_id: uuid.UUID, *, locked: bool = True) -> Webhook:
    """A webhook of an organisation that the user owns.

    Raises:
        NotFound: there is none.
    """
    find = webhooks.lock_webhook if locked else webhooks.find_webhook
    webhook = await find(tx, user_id, webhook_id)
    if webhook is None:
        raise NotFound(f"There is no webhook {webhook_id}.")
    return webhook


def _require_enabled(webhook: Webhook) -> None:
    if webhook.disabled_at is not None:
        raise Conflict("The webhook is disabled. Enable it first.")


def context_of(webhook_id: uuid.UUID) -> str:
    """What a webhook's secret is encrypted for."""
    return f"webhook {webhook_id}"


async def rotate(sessions: Sessions, cipher: Cipher, rotation: Rotation) -> None:
    """Encrypt again the secrets of webhooks that another key than the first one has encrypted, and count them. An old
    secret that signs no more is deleted."""
    after: uuid.UUID | None = None
    while True:
        async with transaction(sessions) as tx:
            found = await webhooks.lock_sealed_otherwise(tx, cipher.key_id, after, _BATCH)
            for webhook in found:
                try:
                    sealed = [cipher.seal(secret, context_of(webhook.id)) for secret in secrets_of(cipher, webhook)]
                except SecretUnreadable as problem:
                    rotation.unreadable.append((f"the secret of webhook {webhook.id}", str(problem)))
                    continue
                webhook.ciphertext, webhook.key_id = sealed[0].ciphertext, sealed[0].key_id
                if len(sealed) > 1:
                    webhook.old_ciphertext, webhook.old_key_id = sealed[1].ciphertext, sealed[1].key_id
                else:
                    webhook.old_ciphertext = webhook.old_key_id = webhook.old_until = None
                rotation.encrypted += len(sealed)
        if not found:
            return
        after = found[-1].id


def secrets_of(cipher: Cipher, webhook: Webhook) -> list[str]:
    """The secrets with which a webhook's messages are signed: its own, then the old one during the overlap.

    Raises:
        SecretUnreadable: says why one can't be read.
    """
    sealed = [Sealed(webhook.key_id, webhook.ciphertext)]
    if old_secret_until(webhook) is not None and webhook.old_ciphertext is not None and webhook.old_key_id is not None:
        sealed.append(Sealed(webhook.old_key_id, webhook.old_ciphertext))
    return [cipher.open(each, context_of(webhook.id)) for each in sealed]


def old_secret_until(webhook: Webhook) -> datetime | None:
    """Until when the secret before the last rotation signs; None if it does not any more."""
    return webhook.old_until if webhook.old_until is not None and webhook.old_until > datetime.now(UTC) else None


# ---- by workers


def message_of(sending: ToSend, public_url: str) -> str:
    """The body of a delivery: the same for each attempt. The build's page has what is not in it."""
    delivery, event, build, project = sending.delivery, sending.event, sending.build, sending.project
    at = event.created_at if event is not None else delivery.created_at
    content: dict[str, object] = {"type": delivery.topic, "timestamp": at.astimezone(UTC).isoformat(), "data": {}}
    if event is not None and build is not None and project is not None:
        of_event = {name: event.data.get(name) for name in ("reason", "wakes_at", "build_version", "preview_url")}
        data = {
            "build_id": str(build.id),
            "project_id": str(project.id),
            "project_name": project.name,
            "organisation_id": str(project.org_id),
            "event_id": event.id,
            "url": f"{public_url.rstrip('/')}/builds/{build.id}",
            **{name: value for name, value in of_event.items() if value is not None},
        }
        if sending.question is not None:
            data["question"] = {"problem": sending.question.problem, "options": sending.question.options}
        content["data"] = data
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


async def attempt_delivery(
    sessions: Sessions, cipher: Cipher, sender: WebhookSender, delivery_id: uuid.UUID, public_url: str
) -> int | None:
    """Make one attempt; returns the seconds until the next one, or None if the delivery has ended.

    Raises:
        SecretUnreadable: the secret that signs can't be read; an operator has to set SECRETS_KEY right.
    """
    async with transaction(sessions) as tx:
        sending = await webhooks.find_to_send(tx, delivery_id)
        if sending is None:
            return None
        webhook, attempts = sending.webhook, sending.delivery.attempts
        if webhook.disabled_at is not None:
            await webhooks.record_attempt(
                tx, delivery_id, state="dead", error="The webhook is disabled.", ended_at=datetime.now(UTC)
            )
            return None
        body, url = message_of(sending, public_url), webhook.url
        secrets = secrets_of(cipher, webhook)
    answer = await sender.send(url, secrets, f"msg_{delivery_id.hex}", body)
    wait = None if answer.error is None or answer.is_gone else wait_after(attempts + 1, answer.retry_after)
    now = datetime.now(UTC)
    async with transaction(sessions) as tx:
        if answer.error is None:
            await webhooks.record_attempt(
                tx, delivery_id, state="delivered", status=answer.status, error=None, ended_at=now
            )
        elif wait is None:
            await webhooks.record_attempt(
                tx, delivery_id, state="dead", status=answer.status, error=answer.error, ended_at=now
            )
        else:
            await webhooks.record_attempt(tx, delivery_id, status=answer.status, error=answer.error, due_at=now + wait)
        if answer.is_gone:
            await webhooks.disable_webhook(tx, webhook.id, "The receiver answered that it is gone (410).")
    return None if wait is None else round(wait.total_seconds())


class Outbox:
    """Starts a workflow for each delivery that is queued, and for one that has lost its workflow."""

    def __init__(self, sessions: Sessions, workflows: BuildWorkflows) -> None:
        self._sessions = sessions
        self._workflows = workflows

    async def keep(self) -> None:
        """Look every two seconds until this is cancelled, through every outage. One is logged once."""
        has_warned, cleaned_at = False, float("-inf")
        while True:
            try:
                await self.look()
                if (now := asyncio.get_running_loop().time()) - cleaned_at > _OLD_EVERY_SECONDS:
                    cleaned_at = now
                    await self._delete_old()
                has_warned = False
            except Exception as error:  # whatever it is, what is queued waits and must be looked at again
                if not has_warned:
                    _log.warning("webhooks wait to be delivered", error=error)
                has_warned = True
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> int:
        """Start the workflows of some deliveries; returns of how many."""
        async with transaction(self._sessions) as tx:
            if await runs_older_worker(tx, FIRST_SCHEMA):
                return 0  # it would take the workflow and not know it
            found = await webhooks.deliveries_to_start(tx, _BATCH)
        # Another worker may start the same ones: the second start of a workflow does nothing.
        for delivery in found:
            is_new = await self._workflows.start_delivery(delivery.id)
            # A replay that finds the last workflow about to close stays queued for the next look.
            if is_new or delivery.state == "sending" or delivery.attempts:
                async with transaction(self._sessions) as tx:
                    await webhooks.mark_started(tx, delivery.id)
        return len(found)

    async def _delete_old(self) -> None:
        async with transaction(self._sessions) as tx:
            deleted = await webhooks.delete_old_deliveries(tx, _BATCH * 100)
        if deleted:
            _log.info("deleted old deliveries of webhooks", deliveries=deleted)
