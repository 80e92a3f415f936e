"""The bodies of requests and responses about erasures."""

import uuid
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from api.schemas import Body
from db.models import Erasure
from domain import user_id
from domain.erasure import ErasureKind

_ERASURE: dict[str, Any] = {
    "id": "0d3c6c0e-0c52-4a57-a0bb-3c8a9d1f7a11",
    "kind": "project",
    "user_id": "ada",
    "project_id": "9b2f0c1e-6a54-4a0b-9d5e-2f1f8f0f6c11",
    "requested_by": "ada",
    "requested_at": "2026-11-24T09:30:00Z",
    "finished_at": "2026-11-24T09:30:21Z",
    "counts": {"builds": 3, "messages": 412, "objects": 12, "executions": 6, "ledger_entries_kept": 203},
    "sha256": "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9",
}


class ProjectErasure(Body):
    """The confirmation that a project is to be deleted."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Pantry Pal"}]})

    name: str = Field(description="The project's name, as a confirmation.", min_length=1, max_length=200)


class AccountErasure(Body):
    """The confirmation that an account is to be deleted."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "ada"}]})

    user_id: str = Field(
        description="The id of the user, as a confirmation.",
        min_length=1,
        max_length=user_id.MAX_CHARACTERS,
        pattern=user_id.PATTERN,
    )


class ErasureOut(BaseModel):
    """An erasure. Once `finished_at` is set, this is its certificate."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ERASURE]})

    id: uuid.UUID
    kind: ErasureKind
    user_id: str
    project_id: uuid.UUID | None = Field(description="null: all that the user had.")
    requested_by: str = Field(description="A user's id, or `operator`.")
    requested_at: datetime
    finished_at: datetime | None
    counts: dict[str, int] = Field(
        description="What was erased, by kind. `ledger_entries_kept`: what calls have cost, which stays."
    )
    sha256: str | None = Field(
        description="Of the certificate as JSON: the other members, keys sorted, no spaces, times in UTC with "
        "microseconds, `requested_at` and `finished_at` included."
    )

    @classmethod
    def of(cls, row: Erasure) -> Self:
        """The erasure's row."""
        return cls.model_validate(row, from_attributes=True)


class ErasureList(BaseModel):
    """Erasures."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"erasures": [_ERASURE]}]})

    erasures: list[ErasureOut]


class ErasurePage(BaseModel):
    """Erasures of all users."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"erasures": [_ERASURE], "next_cursor": None}]})

    erasures: list[ErasureOut]
    next_cursor: str | None = Field(description="Send it as `cursor` to get the next page; null on the last one.")
