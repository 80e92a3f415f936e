"""The certificate of an erasure: what it says, and its hash."""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256

from domain.certificates import certificate_text


class ErasureKind(StrEnum):
    """What is erased."""

    PROJECT = "project"
    USER = "user"


_STAND_IN = re.compile(r"erased-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def new_stand_in() -> str:
    """An id for the user to whom the money of an erased user belongs from then on."""
    return f"erased-{uuid.uuid4()}"


def why_suspended(user_id: str, *, is_being_erased: bool) -> str | None:
    """Say why the suspension of a user can't be lifted, for operators; None if it can."""
    if _STAND_IN.fullmatch(user_id):
        return f"The account of {user_id} was deleted, so it stays suspended."
    if is_being_erased:
        return f"The account of {user_id} is being deleted, so it stays suspended."
    return None


@dataclass(frozen=True)
class ErasureCertificate:
    """What was erased, when, and by whom. Holds ids and counts, and nothing that someone has written.

    `counts`: by kind of thing, how many there were.
    """

    id: uuid.UUID
    kind: ErasureKind
    user_id: str
    project_id: uuid.UUID | None
    requested_by: str
    requested_at: datetime
    finished_at: datetime
    counts: Mapping[str, int]

    @property
    def text(self) -> str:
        """The certificate as JSON, the same on every machine."""
        return certificate_text(
            {
                "counts": dict(self.counts),
                "finished_at": self.finished_at,
                "id": self.id,
                "kind": str(self.kind),
                "project_id": self.project_id,
                "requested_at": self.requested_at,
                "requested_by": self.requested_by,
                "user_id": self.user_id,
            }
        )

    @property
    def sha256(self) -> str:
        """The hash of `text`, in hex."""
        return sha256(self.text.encode()).hexdigest()
