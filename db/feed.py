"""Writing the live feed: events with a per-build sequence, and the NOTIFY that nudges its readers."""

import uuid
from collections.abc import Sequence

from sqlalchemy import JSON, UUID, BigInteger, bindparam, text
from sqlalchemy.ext.asyncio import AsyncSession

from domain.events import NewEvent

CHANNEL = "cofounder_events"
"""NOTIFY channel; the payload is the build's id. Readers select what is after the last event that they have."""


_APPEND = text(
    """
    with seq as (
        update builds set last_event_id = last_event_id + :count where id = :build returning last_event_id
    ), made as (
        insert into events (build_id, id, type, turn, data)
        select :build, seq.last_event_id - :count + new.position, new.type, new.turn, new.data
        from seq, rows from (json_to_recordset(:events) as (type text, turn integer, data jsonb))
            with ordinality as new (type, turn, data, position)
    )
    select seq.last_event_id, pg_notify(:channel, cast(:build as text)) from seq
    """
).bindparams(
    bindparam("build", type_=UUID(as_uuid=True)),
    bindparam("count", type_=BigInteger()),
    bindparam("events", type_=JSON),
)
"""One round trip, since every turn makes several. The update locks the build's row before anything is inserted."""


async def append_events(session: AsyncSession, build_id: uuid.UUID, events: Sequence[NewEvent]) -> int:
    """Append events to a build's feed in the caller's transaction; returns the last one's id.

    The sequence is taken by an update of the build's row, whose lock is held until commit: an event with a higher id
    can't be committed, and so can't be read, before one with a lower id.
    """
    rows = [{"type": event.type, "turn": event.turn, "data": event.data} for event in events]
    given = {"build": build_id, "count": len(rows), "events": rows, "channel": CHANNEL}
    last = (await session.execute(_APPEND, given)).scalar()
    if last is None:
        raise LookupError(f"there is no build {build_id}")
    return int(last)
