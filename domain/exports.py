"""Exports that are written in the background: their states, and how long their files are kept."""

from datetime import datetime, timedelta
from enum import StrEnum

KEPT = timedelta(days=7)
"""An export's file is deleted this long after it was stored."""

FILES_KEPT = 3
"""Files of a user's exports of one project, or of the account. A further one expires the oldest."""


class ExportState(StrEnum):
    """How far an export is."""

    QUEUED = "queued"
    WRITING = "writing"
    READY = "ready"
    """Its file can be downloaded."""
    FAILED = "failed"
    EXPIRED = "expired"
    """Its file was deleted, or is soon. Its certificate stays."""


def state_of(*, claimed: bool, failed_at: datetime | None, expires_at: datetime | None, now: datetime) -> ExportState:
    """The state of an export.

    Args:
        claimed: a worker has begun to write it.
        expires_at: when its file is to be deleted; None if it is not stored.
    """
    if failed_at is not None:
        return ExportState.FAILED
    if expires_at is not None:
        return ExportState.READY if now < expires_at else ExportState.EXPIRED
    return ExportState.WRITING if claimed else ExportState.QUEUED
