"""Live feeds: one reader per build and process, which shares its events with all viewers of the build.

A viewer first reads the past events for itself, then joins the build's reader. Event ids are the build's own sequence,
assigned under a lock of its row, so no event appears later with a lower id. After a lost connection, to the viewer or
to the database, reading continues after the last id.

Whether a viewer may see the build was checked before the feed began, and is checked again while it lasts: by the
viewer's own access, and by the key or sign-in with which the viewer came.
"""

import asyncio
import contextlib
import contextvars
import json
import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

import structlog

from api.nudges import FeedNudges
from db.builds import find_build
from db.events import FeedPage, read_feed
from db.models import Event
from db.session import Access, Sessions
from db.transaction import transaction
from domain.identity import Identity
from observing import metrics
from services.credentials import still_works

T = TypeVar("T")

log = structlog.get_logger(__name__)

_POLL_SECONDS = 5.0
"""Readers also look after this long without a nudge: a NOTIFY may be lost with its listener."""

_ACCESS_SECONDS = 5.0
"""Check viewers again after this long. A reader looks every `_POLL_SECONDS` at least, so a feed ends within the sum of
both after its viewer may not see the build any more."""

_PAGE_EVENTS = 500

_PENDING_EVENTS = 2000
"""Drop a viewer that is further behind its reader; it comes back with its Last-Event-ID."""


@dataclass(frozen=True)
class Batch:
    """Events that were read together, each encoded once for all viewers."""

    events: Sequence[tuple[int, bytes]]
    since: datetime
    """When the first of them was written."""

    @classmethod
    def of(cls, events: Sequence[Event]) -> "Batch":
        """Encode the events."""
        return cls([(event.id, _encode(event)) for event in events], events[0].created_at)

    @property
    def last(self) -> int:
        """The last event's id."""
        return self.events[-1][0]

    def after(self, last: int) -> bytes:
        """The bytes for a viewer that has the events up to this id."""
        return b"".join(encoded for number, encoded in self.events if number > last)


@dataclass(eq=False)
class _Viewer:
    """One viewer's queue of batches that it has not taken yet."""

    identity: Identity
    joined_after: int
    """Every event after this one arrives here."""

    batches: deque[Batch] = field(default_factory=deque)
    waiting: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    is_over: bool = False

    def offer(self, batch: Batch) -> bool:
        """Queue the batch; False if the viewer is too far behind, which ends it."""
        self.waiting += len(batch.events)
        if self.waiting > _PENDING_EVENTS:
            self.drop()
            return False
        self.batches.append(batch)
        self.arrived.set()
        return True

    def drop(self) -> None:
        """End it without the batches that it has not taken."""
        self.batches.clear()
        self.end()

    def end(self) -> None:
        self.is_over = True
        self.arrived.set()

    async def next(self) -> Batch | None:
        """The next batch; None if no more follow."""
        while not self.batches:
            if self.is_over:
                return None
            self.arrived.clear()
            await self.arrived.wait()
        batch = self.batches.popleft()
        self.waiting -= len(batch.events)
        return batch


@dataclass(eq=False)
class _Reader:
    """A build's reader. `position` is the id of the last event that it has handed out."""

    position: int
    viewers: set[_Viewer] = field(default_factory=set)
    checked_at: float = field(default_factory=time.monotonic)
    """When its viewers were checked the last time."""
    task: asyncio.Task[None] | None = None


class Feeds:
    """All feeds that have viewers in this process."""

    def __init__(self, sessions: Sessions, nudges: FeedNudges) -> None:
        self._sessions = sessions
        self._nudges = nudges
        self._readers: dict[uuid.UUID, _Reader] = {}
        self._is_ending = False

    def start(self) -> None:
        """Start to listen."""
        self._nudges.start()

    def end(self) -> None:
        """End every feed after the events that it has read, before the process does. Viewers come back elsewhere."""
        self._is_ending = True
        for reader in self._readers.values():
            for viewer in reader.viewers:
                viewer.end()

    async def stop(self) -> None:
        """Stop listening and reading."""
        tasks = [reader.task for reader in self._readers.values() if reader.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._nudges.stop()

    def viewers(self, build_id: uuid.UUID) -> int:
        """The number of live viewers of the build."""
        return len(self._readers[build_id].viewers) if build_id in self._readers else 0

    async def follow(self, build_id: uuid.UUID, after: int, identity: Identity) -> AsyncGenerator[bytes, None]:
        """The build's encoded events after an id, until the build is closed, or the viewer is too slow or may not see
        the build any more. The caller has checked that the identity may see it."""
        checked_at = time.monotonic()
        while True:
            if time.monotonic() - checked_at >= _ACCESS_SECONDS:
                if not await self._who_may_see(build_id, {identity}):
                    return
                checked_at = time.monotonic()
            page = await self._read_until_it_answers(build_id, after)
            if page.events:
                batch = Batch.of(page.events)
                yield batch.after(after)
                after = batch.last
            if page.is_last or self._is_ending:
                return
            if len(page.events) < _PAGE_EVENTS:
                break
        with self._joined(build_id, page.last_event_id, identity) as viewer:
            while after < viewer.joined_after:  # what was added between that page and joining the reader
                page = await self._read_until_it_answers(build_id, after)
                if not page.events or self._is_ending:
                    break
                batch = Batch.of(page.events)
                yield batch.after(after)
                after = batch.last
            while (live := await viewer.next()) is not None:
                if part := live.after(after):
                    _note_lag(live)  # before the client takes it: how slow a client is does not count
                    yield part
                    after = live.last

    @contextlib.contextmanager
    def _joined(self, build_id: uuid.UUID, last_event_id: int, identity: Identity) -> Iterator[_Viewer]:
        """A viewer of the build's reader. Starts a reader after `last_event_id` if the build has none yet."""
        reader = self._readers.get(build_id)
        if reader is None:
            reader = self._readers[build_id] = _Reader(last_event_id)
            # In a context of its own: it reads for all viewers, not for the one whose request is at hand.
            reader.task = asyncio.create_task(self._run(build_id, reader), context=contextvars.Context())
        viewer = _Viewer(identity, reader.position)
        reader.viewers.add(viewer)
        try:
            yield viewer
        finally:
            reader.viewers.discard(viewer)
            if not reader.viewers:
                self._forget(build_id, reader)
                if reader.task is not None:
                    reader.task.cancel()

    def _forget(self, build_id: uuid.UUID, reader: _Reader) -> None:
        if self._readers.get(build_id) is reader:
            del self._readers[build_id]

    async def _run(self, build_id: uuid.UUID, reader: _Reader) -> None:
        try:
            with self._nudges.of(str(build_id)) as nudged:
                while True:
                    nudged.clear()  # before reading: a later announcement is read in the next round
                    page = await self._read_until_it_answers(build_id, reader.position)
                    if time.monotonic() - reader.checked_at >= _ACCESS_SECONDS:
                        await self._drop_who_may_not_see(build_id, reader)
                    if page.events:
                        self._hand_out(build_id, reader, Batch.of(page.events))
                    if page.is_last:
                        return
                    if len(page.events) < _PAGE_EVENTS:
                        with contextlib.suppress(TimeoutError):
                            # Not `wait_for`: in Python 3.11 a nudge at the same moment swallows the cancel.
                            async with asyncio.timeout(_POLL_SECONDS):
                                await nudged.wait()
        finally:
            # Later viewers get a new reader.
            self._forget(build_id, reader)
            for viewer in reader.viewers:
                viewer.end()

    async def _drop_who_may_not_see(self, build_id: uuid.UUID, reader: _Reader) -> None:
        began = time.monotonic()
        identities = {viewer.identity for viewer in reader.viewers}
        refused = identities - await self._who_may_see(build_id, identities)
        for viewer in reader.viewers:
            if viewer.identity in refused:
                viewer.drop()
        if refused:
            log.info("ended feeds of viewers who may not see the build any more", build_id=str(build_id))
        reader.checked_at = began

    def _hand_out(self, build_id: uuid.UUID, reader: _Reader, batch: Batch) -> None:
        reader.position = batch.last
        slow = {viewer for viewer in reader.viewers if not viewer.offer(batch)}
        reader.viewers -= slow
        if slow:
            log.info("dropped slow viewers", build_id=str(build_id), viewers=len(slow), event_id=batch.last)

    async def _read_until_it_answers(self, build_id: uuid.UUID, after: int) -> FeedPage:
        """The next events; an empty last page if feeds are ending.

        A started stream can't answer with an error: it stays silent until the database is back.
        """

        async def read() -> FeedPage:
            async with transaction(self._sessions) as tx:
                return await read_feed(tx, build_id, after, _PAGE_EVENTS)

        page = await self._until_it_answers(build_id, read)
        return page or FeedPage(events=[], last_event_id=after, is_last=True)

    async def _who_may_see(self, build_id: uuid.UUID, identities: Set[Identity]) -> Set[Identity]:
        """Those of the identities that may see the build; none if feeds are ending."""

        async def find() -> Set[Identity]:
            may_see = set()
            for identity in identities:
                async with transaction(self._sessions.acting(Access(identity.user_id))) as tx:
                    sees = await find_build(tx, identity.user_id, build_id) is not None
                async with transaction(self._sessions) as tx:
                    if sees and await still_works(tx, identity):
                        may_see.add(identity)
            return may_see

        return await self._until_it_answers(build_id, find) or set()

    async def _until_it_answers(self, build_id: uuid.UUID, ask: Callable[[], Awaitable[T]]) -> T | None:
        """Ask the database again until it answers; None if feeds are ending."""
        has_warned = False
        while not self._is_ending:
            try:
                return await ask()
            except Exception as error:
                if not has_warned:
                    log.warning("cannot read the feed", build_id=str(build_id), error=error)
                has_warned = True
            await asyncio.sleep(min(1.0, _POLL_SECONDS))
        return None


def _note_lag(batch: Batch) -> None:
    """Measure how late an event is offered to a viewer. A clock ahead of the database's counts as no lag."""
    metrics.FEED_LAG.observe(max(0.0, (datetime.now(UTC) - batch.since).total_seconds()))


def _encode(event: Event) -> bytes:
    data = {"turn": event.turn, "created_at": event.created_at.isoformat(), "data": event.data}
    body = json.dumps(data, separators=(",", ":"))  # ASCII on one line
    return f"id: {event.id}\r\nevent: {event.type}\r\ndata: {body}\r\n\r\n".encode()
