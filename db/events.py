"""Reading the live feed, and listening for its nudges; `db/feed.py` writes it."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, select

from db.models import Build, Event
from db.nudges import CHANNEL
from db.session import Sessions
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


async def read_past(
    tx: Transaction, build_id: uuid.UUID, before: int | None, types: Sequence[str], limit: int
) -> list[Event]:
    """Up to `limit` events before the one with the id `before`, the newest first.

    `types`: only events of these types; empty means all.
    """
    query = select(Event).where(Event.build_id == build_id)
    if before is not None:
        query = query.where(Event.id < before)
    if types:
        query = query.where(Event.type.in_(types))
    return list(await tx.session.scalars(query.order_by(Event.id.desc()).limit(limit)))


async def last_event_data(tx: Transaction, build_id: uuid.UUID, event_type: str) -> dict[str, Any] | None:
    """The data of the build's last event of this type, if there is one."""
    return await tx.session.scalar(
        select(Event.data)
        .where(Event.build_id == build_id, Event.type == event_type)
        .order_by(Event.id.desc())
        .limit(1)
    )


async def event_data_of_turn(tx: Transaction, build_id: uuid.UUID, event_type: str, turn: int) -> dict[str, Any] | None:
    """The data of the turn's first event of this type, if there is one."""
    return await tx.session.scalar(
        select(Event.data)
        .where(Event.build_id == build_id, Event.type == event_type, Event.turn == turn)
        .order_by(Event.id)
        .limit(1)
    )


class FeedConnection:
    """A connection that listens for nudges. Made by `listen`."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._ended = asyncio.Event()
        driver.add_termination_listener(lambda _: self._ended.set())

    async def ends_within(self, seconds: float) -> bool:
        """Wait for the connection's end. Return False if it has not ended after this many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # not `wait_for`: in Python 3.11 it can swallow a cancel
                await self._ended.wait()
        return self._ended.is_set()

    async def check(self) -> None:
        """Ask the server for an answer.

        Raises:
            TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError: it does not answer.
        """
        await self._driver.fetchval("select 1", timeout=10)


@contextlib.asynccontextmanager
async def listen(sessions: Sessions, on_nudge: Callable[[str], None]) -> AsyncIterator[FeedConnection]:
    """Call `on_nudge` with a build's id whenever the build's feed may have grown, until the end of the block."""
    async with sessions.statements.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection  # only asyncpg's own can listen
        try:
            feed = FeedConnection(driver)
            await driver.add_listener(CHANNEL, lambda _connection, _pid, _channel, build_id: on_nudge(build_id))
            yield feed
        finally:
            await connection.invalidate()  # a listening connection must not return to the pool
