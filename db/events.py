"""Reading the live feed; `db/feed.py` writes it."""

import uuid
from dataclasses import dataclass

from sqlalchemy import and_, select

from db.models import Build, Event
from db.transaction import Transaction


@dataclass(frozen=True)
class FeedPage:
    """The next events of a feed."""

    events: list[Event]
    last_event_id: int
    is_last: bool
    """The build is closed, and no event comes after these."""


async def read_feed(tx: Transaction, build_id: uuid.UUID, after: int, limit: int) -> FeedPage:
    """Up to `limit` events after the one with the id `after`, in order."""
    # One statement reads one moment: the transaction that closes a build also appends its last event.
    rows = (
        await tx.session.execute(
            select(Build.closed_at, Build.last_event_id, Event)
            .outerjoin(Event, and_(Event.build_id == Build.id, Event.id > after))
            .where(Build.id == build_id)
            .order_by(Event.id)
            .limit(limit)
        )
    ).all()
    if not rows:
        return FeedPage([], last_event_id=0, is_last=True)
    events = [event for _, _, event in rows if event is not None]
    closed_at, last_event_id, _ = rows[0]
    return FeedPage(events, last_event_id, is_last=closed_at is not None and len(events) < limit)
