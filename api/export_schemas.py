"""The bodies of responses about exports that are written in the background."""

import uuid
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from db.models import StoredExport
from domain.exports import ExportState
from services.stored_exports import export_state

_EXPORT: dict[str, Any] = {
    "id": "6f0a3f8e-0e61-4a0e-8f0e-61c7d1a2b105",
    "project_id": "9b2f0c1e-6a54-4a0b-9d5e-2f1f8f0f6c11",
    "state": "ready",
    "requested_by": "ada",
    "requested_at": "2026-11-24T09:30:00Z",
    "stored_at": "2026-11-24T09:30:07Z",
    "expires_at": "2026-12-01T09:30:07Z",
    "bytes": 18320411,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "problem": None,
}


class ExportOut(BaseModel):
    """An export that is written in the background."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXPORT]})

    id: uuid.UUID = Field(description="Also of its certificate: `GET /v1/certificates/{id}`.")
    project_id: uuid.UUID | None = Field(description="null: the account.")
    state: ExportState = Field(
        description="`ready`: its file can be downloaded. `expired`: the file was deleted, or is soon."
    )
    requested_by: str = Field(description="A user's id, or `operator`.")
    requested_at: datetime
    stored_at: datetime | None
    expires_at: datetime | None = Field(description="When its file is deleted.")
    bytes: int | None = Field(description="The size of its file.")
    sha256: str | None = Field(description="Of its file.")
    problem: str | None = Field(description="Why it has no file, if it failed.")

    @classmethod
    def of(cls, row: StoredExport) -> Self:
        """The export's row."""
        values = {name: getattr(row, name) for name in cls.model_fields if name != "state"}
        return cls.model_validate({**values, "state": export_state(row)})


class ExportList(BaseModel):
    """Exports."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"exports": [_EXPORT]}]})

    exports: list[ExportOut]
