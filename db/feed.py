"""Writing the live feed: events with a per-build sequence, and the NOTIFY that nudges its readers."""

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import insert, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Build, Event
from domain.events import NewEvent

CHANNEL = "cofounder_events"
"""NOTIFY channel; the payload is the build's id. Readers select what is after the last event that they have."""


async def append_events(session: AsyncSession, build_id: uuid.UUID, events: Sequence[NewEvent]) -> int:
    """Append events to a build's feed in the caller's transaction; returns the last one's id.

    The sequence is taken by an update of the build's row, whose lock is held until commit: an event with a higher id
    can't be committed, and so can't be read, before one with a lower id.
    """
    last = await session.scalar(
        update(Build)
        .where(Build.id == build_id)
        .values(last_event_id=Build.last_event_id + len(events))
        .returning(Build.last_event_id)
    )
    if last is None:
        raise LookupError(f"there is no build {build_id}")
    first = last - len(events) + 1
    rows: list[dict[str, Any]] = [
        {"build_id": build_id, "id": first + offset, "type": event.type, "turn": event.turn, "data": event.data}
        for offset, event in enumerate(events)
    ]
    await session.execute(insert(Event), rows)
    await session.execute(text("select pg_notify(:channel, :build)"), {"channel": CHANNEL, "build": str(build_id)})
    return int(last)
