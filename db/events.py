"""Reading the live feed; `db/feed.py` writes it."""

import uuid
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Build, Event


@dataclass(frozen=True)
class FeedPage:
    """The next events of a feed. `is_last`: the build is closed, and nothing stands after these."""

    events: list[Event]
    is_last: bool


async def read_feed(session: AsyncSession, build_id: uuid.UUID, after: int, limit: int = 500) -> FeedPage:
    """Up to `limit` events after the one with the id `after`, in order."""
    # The state before the events: what closes a build commits together with its event, so a build that is seen closed
    # here has all of its events seen below.
    closed_at = await session.scalar(select(Build.closed_at).where(Build.id == build_id))
    events = list(
        await session.scalars(
            select(Event).where(Event.build_id == build_id, Event.id > after).order_by(Event.id).limit(limit)
        )
    )
    return FeedPage(events, is_last=closed_at is not None and len(events) < limit)
