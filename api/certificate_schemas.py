"""The bodies of responses about certificates."""

import uuid
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from db.models import Certificate
from domain.certificates import CertificateKind

_CERTIFICATE: dict[str, Any] = {
    "id": "3f8e6f0a-61c7-4a0e-8f0e-5f6f6a1d2b10",
    "kind": "archive",
    "user_id": "ada",
    "project_id": "9b2f0c1e-6a54-4a0b-9d5e-2f1f8f0f6c11",
    "build_id": "5d1c2f6e-7a42-4a4f-9d7e-0e6b1f0a3c55",
    "rule": "CONVERSATION_DAYS=90",
    "counts": {"messages": 412, "events": 1630, "bytes": 183204},
    "file_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "manifest_sha256": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
    "issued_at": "2026-11-24T09:30:00Z",
    "sha256": "fd61a03af4f77d870fc21e05e7e80678095c92d808cfb3b5c279ee04c74aca13",
}


class CertificateOut(BaseModel):
    """The certificate of an archive, which left the database for the object store, or of an export."""

    model_config = ConfigDict(json_schema_extra={"examples": [_CERTIFICATE]})

    id: uuid.UUID
    kind: CertificateKind
    user_id: str = Field(description="Whose data it is.")
    project_id: uuid.UUID | None = Field(description="null: it is not about a project.")
    build_id: uuid.UUID | None = Field(description="null: it is not about one build.")
    rule: str = Field(description="Why: the setting with its value, or `requested by` and a user's id or `operator`.")
    counts: dict[str, int] = Field(description="What there was, by kind. `bytes`: the size of the file.")
    file_sha256: str = Field(description="Of the file that was written.")
    manifest_sha256: str = Field(description="Of `manifest.json`, which says what the file has.")
    issued_at: datetime
    sha256: str = Field(
        description="Of the certificate as JSON: the other members, keys sorted, no spaces, times in UTC with "
        "microseconds."
    )

    @classmethod
    def of(cls, row: Certificate) -> Self:
        """The certificate's row."""
        return cls.model_validate(row, from_attributes=True)


class CertificateList(BaseModel):
    """Certificates."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"certificates": [_CERTIFICATE]}]})

    certificates: list[CertificateOut]
