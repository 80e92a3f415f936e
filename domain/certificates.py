"""The certificate of an archive or an export: what it says, and its hash. Erasures have their own."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256


class CertificateKind(StrEnum):
    """What was done with the data."""

    ARCHIVE = "archive"
    """A build's conversation and feed left the database for the object store."""
    EXPORT = "export"
    """All that a project has, or what is known of a user, was written into a file for them."""


@dataclass(frozen=True)
class Statement:
    """What was done with which data, and by which rule. Holds ids, counts and hashes, and nothing that someone has
    written.

    - `user_id`: whose data it is. `project_id`, `build_id`: None if it is not about one.
    - `rule`: the setting with its value, or who asked for it.
    - `counts`: by kind of thing, how many there were; `bytes` is the file's size.
    - `file_sha256`: of the file that was written; `manifest_sha256`: of its list of contents.
    """

    kind: CertificateKind
    user_id: str
    project_id: uuid.UUID | None
    build_id: uuid.UUID | None
    rule: str
    counts: Mapping[str, int]
    file_sha256: str
    manifest_sha256: str


@dataclass(frozen=True)
class Certificate(Statement):
    """A statement with the id and the time with which it was issued."""

    id: uuid.UUID
    issued_at: datetime

    @property
    def text(self) -> str:
        """The certificate as JSON, the same on every machine."""
        return certificate_text(
            {
                "build_id": self.build_id,
                "counts": dict(self.counts),
                "file_sha256": self.file_sha256,
                "id": self.id,
                "issued_at": self.issued_at,
                "kind": str(self.kind),
                "manifest_sha256": self.manifest_sha256,
                "project_id": self.project_id,
                "rule": self.rule,
                "user_id": self.user_id,
            }
        )

    @property
    def sha256(self) -> str:
        """The hash of `text`, in hex."""
        return sha256(self.text.encode()).hexdigest()


def certificate_text(values: Mapping[str, object]) -> str:
    """Values as JSON with sorted keys, without spaces, times in UTC with microseconds."""
    return json.dumps({name: _plain(value) for name, value in values.items()}, sort_keys=True, separators=(",", ":"))


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    return str(value) if isinstance(value, uuid.UUID) else value
