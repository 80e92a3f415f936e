"""Webhooks of organisations, and the deliveries that a trigger queues for them (migration 0034)."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, delete, func, or_, select, update

from db.models import Build, Event, Membership, Project, Question, Webhook, WebhookDelivery
from db.paging import Position, page_after
from db.transaction import Transaction
from domain.identity import Role
from domain.webhooks import Topic

_STARTED_AGAIN_AFTER = timedelta(minutes=5)
"""A delivery that is due for so long has lost its workflow."""

_KEPT = timedelta(days=30)


def _owned(user_id: str) -> Select[Webhook]:
    owner = Membership.user_id == user_id, Membership.role == Role.OWNER
    return select(Webhook).join(Membership, Membership.org_id == Webhook.org_id).where(*owner)


async def add_webhook(tx: Transaction, webhook: Webhook) -> Webhook:
    """Insert a webhook."""
    tx.session.add(webhook)
    await tx.session.flush()
    await tx.session.refresh(webhook)
    return webhook


async def list_webhooks(tx: Transaction, user_id: str) -> Sequence[Webhook]:
    """The webhooks of all organisations that the user owns, the oldest first."""
    return (await tx.session.scalars(_owned(user_id).order_by(Webhook.created_at, Webhook.id))).all()


async def count_webhooks(tx: Transaction, org_id: uuid.UUID) -> int:
    """How many webhooks an organisation has."""
    return int(await tx.session.scalar(select(func.count()).where(Webhook.org_id == org_id)) or 0)


async def find_webhook(tx: Transaction, user_id: str, webhook_id: uuid.UUID) -> Webhook | None:
    """A webhook of an organisation that the user owns."""
    return (await tx.session.scalars(_owned(user_id).where(Webhook.id == webhook_id))).one_or_none()


async def lock_webhook(tx: Transaction, user_id: str, webhook_id: uuid.UUID) -> Webhook | None:
    """A webhook of an organisation that the user owns, locked until the transaction ends."""
    return (
        await tx.session.scalars(
            _owned(user_id).where(Webhook.id == webhook_id).with_for_update(of=Webhook, key_share=True)
        )
    ).one_or_none()


async def remove_webhook(tx: Transaction, webhook: Webhook) -> None:
    """Delete a webhook and its deliveries."""
    await tx.session.execute(delete(Webhook).where(Webhook.id == webhook.id))


async def list_deliveries(
    tx: Transaction, webhook_id: uuid.UUID, limit: int, after: Position | None = None, state: str | None = None
) -> Sequence[WebhookDelivery]:
    """A page of a webhook's deliveries, the newest first."""
    query = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
    if state is not None:
        query = query.where(WebhookDelivery.state == state)
    return (await tx.session.scalars(page_after(query, WebhookDelivery, after, limit))).all()


async def add_test(tx: Transaction, webhook_id: uuid.UUID) -> WebhookDelivery:
    """Queue a delivery that tells of no build."""
    delivery = WebhookDelivery(id=uuid.uuid4(), webhook_id=webhook_id, topic=Topic.TEST)
    tx.session.add(delivery)
    await tx.session.flush()
    await tx.session.refresh(delivery)
    return delivery


async def lock_delivery(tx: Transaction, webhook_id: uuid.UUID, delivery_id: uuid.UUID) -> WebhookDelivery | None:
    """A delivery of a webhook, locked until the transaction ends."""
    query = select(WebhookDelivery).where(WebhookDelivery.id == delivery_id, WebhookDelivery.webhook_id == webhook_id)
    return (await tx.session.scalars(query.with_for_update())).one_or_none()


async def queue_again(tx: Transaction, delivery: WebhookDelivery) -> WebhookDelivery:
    """Queue a delivery that has ended, with all its attempts before it."""
    delivery.state, delivery.attempts, delivery.ended_at, delivery.due_at = "queued", 0, None, func.now()
    await tx.session.flush()
    await tx.session.refresh(delivery)
    return delivery


async def deliveries_to_start(tx: Transaction, limit: int) -> Sequence[WebhookDelivery]:
    """Deliveries that are queued, and those that seem to have lost their workflow; the oldest first."""
    is_lost = (WebhookDelivery.state == "sending") & (WebhookDelivery.due_at < func.now() - _STARTED_AGAIN_AFTER)
    query = select(WebhookDelivery).where(or_(WebhookDelivery.state == "queued", is_lost))
    return (await tx.session.scalars(query.order_by(WebhookDelivery.due_at).limit(limit))).all()


async def mark_started(tx: Transaction, delivery_id: uuid.UUID) -> None:
    """Note that a delivery has a workflow."""
    await tx.session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == delivery_id, WebhookDelivery.state.in_(["queued", "sending"]))
        .values(state="sending", due_at=func.now())
    )


@dataclass(frozen=True)
class ToSend:
    """A delivery with all that its message says. `event`, `build` and `project` are None for a test."""

    delivery: WebhookDelivery
    webhook: Webhook
    event: Event | None
    build: Build | None
    project: Project | None
    question: Question | None


async def find_to_send(tx: Transaction, delivery_id: uuid.UUID) -> ToSend | None:
    """A delivery that has not ended; None if it has, or if it or its webhook is gone."""
    query = (
        select(WebhookDelivery, Webhook, Event, Build, Project)
        .join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
        .outerjoin(Event, (Event.build_id == WebhookDelivery.build_id) & (Event.id == WebhookDelivery.event_id))
        .outerjoin(Build, Build.id == WebhookDelivery.build_id)
        .outerjoin(Project, Project.id == Build.project_id)
        .where(WebhookDelivery.id == delivery_id, WebhookDelivery.ended_at.is_(None))
    )
    row = (await tx.session.execute(query)).one_or_none()
    if row is None:
        return None
    delivery, webhook, event, build, project = row
    question = await _question(tx, event) if delivery.topic == Topic.NEEDS_INPUT and event is not None else None
    return ToSend(delivery, webhook, event, build, project, question)


async def _question(tx: Transaction, event: Event) -> Question | None:
    """The question for which the build began to wait with this event, answered since or not."""
    query = select(Question).where(
        Question.build_id == event.build_id,
        Question.tool_use_id.is_(None),
        Question.asked_at <= event.created_at,
        or_(Question.closed_at.is_(None), Question.closed_at > event.created_at),
    )
    return (await tx.session.scalars(query.order_by(Question.asked_at.desc()).limit(1))).one_or_none()


async def record_attempt(tx: Transaction, delivery_id: uuid.UUID, **values: Any) -> None:
    """Note how an attempt of a delivery has ended."""
    await tx.session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == delivery_id, WebhookDelivery.ended_at.is_(None))
        .values(attempts=WebhookDelivery.attempts + 1, **values)
    )


async def disable_webhook(tx: Transaction, webhook_id: uuid.UUID, reason: str) -> None:
    """Queue nothing more for a webhook."""
    await tx.session.execute(
        update(Webhook)
        .where(Webhook.id == webhook_id, Webhook.disabled_at.is_(None))
        .values(disabled_at=func.now(), disabled_reason=reason)
    )


async def delete_old_deliveries(tx: Transaction, limit: int) -> int:
    """Delete deliveries that have ended long ago; returns how many."""
    old = select(WebhookDelivery.id).where(WebhookDelivery.ended_at < func.now() - _KEPT).limit(limit)
    deleted = await tx.session.scalars(
        delete(WebhookDelivery).where(WebhookDelivery.id.in_(old)).returning(WebhookDelivery.id)
    )
    return len(deleted.all())


async def lock_sealed_otherwise(tx: Transaction, key_id: str, after: uuid.UUID | None, limit: int) -> Sequence[Webhook]:
    """Up to `limit` webhooks, after this one, with a secret that is encrypted with another key. They are locked until
    the transaction ends."""
    is_other = or_(Webhook.key_id != key_id, Webhook.old_key_id != key_id)
    query = select(Webhook).where(is_other).order_by(Webhook.id).limit(limit)
    if after is not None:
        query = query.where(Webhook.id > after)
    return (await tx.session.scalars(query.with_for_update())).all()
