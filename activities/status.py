"""Write the workflow's status, in the transaction of the activity that takes the build to it or on its own."""

import uuid

from db import builds, steering
from db.feed import append_events
from db.transaction import Transaction
from domain.events import StatusEvent
from domain.names import wake_command
from domain.payloads import StatusChange
from domain.question import ASKED, reason_of
from domain.status import Status
from domain.text import storable


async def write_status(tx: Transaction, change: StatusChange) -> str | None:
    """Write a status to the build's row and feed.

    Returns:
        The build's user; None if the row had the status already.

    Raises:
        RowsAreAhead: the row has a later one.
    """
    # The reason may quote an error that `runtime/errors.py` did not clean, and a status that can't be written would be
    # retried for ever.
    reason = None if change.reason is None else storable(change.reason)
    if reason == ASKED and (asked := await steering.find_question(tx, uuid.UUID(change.build_id))) is not None:
        reason = reason_of(asked.question.problem)
    is_repeated = change.again and await builds.has_status(tx, change, reason)
    user_id = await builds.record_status(tx, change, reason)
    if user_id is None:
        await builds.require_recorded(tx, change)
        return None
    if not is_repeated:
        await append_events(tx, uuid.UUID(change.build_id), [_event_of(change, reason)])
    if change.status is not Status.NEEDS_INPUT:
        await steering.close_question(tx, uuid.UUID(change.build_id))
    return user_id


def _event_of(change: StatusChange, reason: str | None) -> StatusEvent:
    return StatusEvent(
        status=change.status,
        waiting_for=change.waiting_for,
        dependency=change.dependency,
        reason=reason,
        wakes_at=change.wakes_at.isoformat() if change.wakes_at else None,
        wake_command=wake_command(change.build_id) if change.status in (Status.SLEEPING, Status.NEEDS_INPUT) else None,
    )
