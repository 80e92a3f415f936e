"""The bodies of requests and responses about webhooks."""

import uuid
from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from api import examples
from api.schemas import Body
from db.models import Webhook, WebhookDelivery
from domain.webhooks import (
    CHOICES,
    DESCRIPTION_MAX_CHARACTERS,
    LONGEST_OVERLAP,
    OVERLAP,
    URL_MAX_CHARACTERS,
    Topic,
)
from services.webhooks import old_secret_until

_URL = "An https address that answers with a status of 200 to 299 within 15 seconds."


class NewWebhook(Body):
    """A webhook to make."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.NEW_WEBHOOK]})

    url: str = Field(description=_URL, min_length=1, max_length=URL_MAX_CHARACTERS)
    topics: list[Topic] = Field(default=list(CHOICES), description="What it is told.", min_length=1, max_length=6)
    description: str = Field(default="", max_length=DESCRIPTION_MAX_CHARACTERS)
    organisation_id: uuid.UUID | None = Field(
        default=None, description="Whose builds it is told of; your personal organisation by default."
    )


class WebhookChange(Body):
    """What to change of a webhook; what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"enabled": False}]})

    url: str | None = Field(default=None, description=_URL, min_length=1, max_length=URL_MAX_CHARACTERS)
    topics: list[Topic] | None = Field(default=None, min_length=1, max_length=6)
    description: str | None = Field(default=None, max_length=DESCRIPTION_MAX_CHARACTERS)
    enabled: bool | None = Field(default=None, description="Whether it is told of what happens from now on.")


class SecretRotation(Body):
    """How to rotate the secret of a webhook."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"overlap_seconds": 3600}]})

    overlap_seconds: int = Field(
        default=int(OVERLAP.total_seconds()),
        ge=0,
        le=int(LONGEST_OVERLAP.total_seconds()),
        description="Messages are signed with the old secret, too, for this many seconds. 0: not at all, if it has "
        "leaked.",
    )


class WebhookOut(BaseModel):
    """A webhook of an organisation that you own."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.WEBHOOK]})

    id: uuid.UUID
    organisation_id: uuid.UUID
    url: str
    topics: list[Topic]
    description: str
    enabled: bool
    disabled_reason: str | None = Field(description="If Cofounder has disabled it: why.")
    created_by: str
    created_at: datetime
    old_secret_until: datetime | None = Field(
        description="Until then, messages are also signed with the secret before the last rotation."
    )

    @classmethod
    def of(cls, webhook: Webhook) -> Self:
        """The webhook's row."""
        return cls(
            id=webhook.id,
            organisation_id=webhook.org_id,
            url=webhook.url,
            topics=[Topic(topic) for topic in webhook.topics],
            description=webhook.description,
            enabled=webhook.disabled_at is None,
            disabled_reason=webhook.disabled_reason,
            created_by=webhook.created_by,
            created_at=webhook.created_at,
            old_secret_until=old_secret_until(webhook),
        )


class MadeWebhookOut(BaseModel):
    """A webhook with its new secret, which is shown only now."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.MADE_WEBHOOK]})

    webhook: WebhookOut
    secret: str = Field(description="Verifies the signature of each message, by Standard Webhooks.")


class WebhookList(BaseModel):
    """Webhooks, the oldest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"webhooks": [examples.WEBHOOK]}]})

    webhooks: list[WebhookOut]


class DeliveryOut(BaseModel):
    """One message to a webhook."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.DELIVERY]})

    id: uuid.UUID = Field(description="The message's id is `msg_` and this, without hyphens.")
    topic: Topic
    build_id: uuid.UUID | None
    event_id: int | None = Field(description="The event of the build's feed; null for a test.")
    state: str = Field(description="`queued`, `sending` (it is tried, again if need be), `delivered` or `dead`.")
    attempts: int
    status: int | None = Field(description="HTTP status of the last answer.")
    error: str | None = Field(description="What was wrong with the last attempt.")
    next_attempt_at: datetime | None = Field(description="Null if it has ended.")
    created_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, delivery: WebhookDelivery) -> Self:
        """The delivery's row."""
        return cls(
            id=delivery.id,
            topic=Topic(delivery.topic),
            build_id=delivery.build_id,
            event_id=delivery.event_id,
            state=delivery.state,
            attempts=delivery.attempts,
            status=delivery.status,
            error=delivery.error,
            next_attempt_at=None if delivery.ended_at else delivery.due_at,
            created_at=delivery.created_at,
            ended_at=delivery.ended_at,
        )


class DeliveryList(BaseModel):
    """Deliveries, the newest first."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"deliveries": [examples.DELIVERY], "next_cursor": None}]}
    )

    deliveries: list[DeliveryOut]
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null if this is the last.")
