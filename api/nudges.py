"""One LISTEN connection per process, shared by all its readers of feeds."""

import asyncio
import contextlib
import uuid
from collections import defaultdict
from collections.abc import Iterator, Set

import structlog

from db.events import listen
from db.session import Sessions

log = structlog.get_logger(__name__)

_RECONNECT_SECONDS = 1.0
_CHECK_SECONDS = 30.0
"""Check a silent connection after this many seconds."""


class HeardNudges:
    """The builds that nudges have named since `take` was called. `missed`: there may have been others."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self._build_ids: set[uuid.UUID] = set()
        self._missed = False

    def hear(self, build_id: str) -> None:
        """Note a nudge. Something else than a build's id is not from us."""
        with contextlib.suppress(ValueError):
            self._build_ids.add(uuid.UUID(build_id))
            self.arrived.set()

    def miss(self) -> None:
        """Note that nudges may have been lost."""
        self._missed = True
        self.arrived.set()

    def take(self) -> tuple[Set[uuid.UUID], bool]:
        """Return the builds, and whether nudges may have been lost, and forget both."""
        taken = self._build_ids, self._missed
        self._build_ids, self._missed = set(), False
        self.arrived.clear()
        return taken


class FeedNudges:
    """Says when a build's feed may have grown. A nudge may be lost or doubled: readers select the events after the last
    one that they have."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._hearing: set[HeardNudges] = set()
        self._has_listened = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to listen. Retries until the database answers."""
        self._task = asyncio.create_task(self._listen_for_ever())

    async def stop(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    @contextlib.contextmanager
    def of(self, build_id: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the build's feed may have grown."""
        nudged = asyncio.Event()
        self._waiting[build_id].add(nudged)
        try:
            yield nudged
        finally:
            self._waiting[build_id].discard(nudged)
            if not self._waiting[build_id]:
                del self._waiting[build_id]

    @contextlib.contextmanager
    def all(self) -> Iterator[HeardNudges]:
        """The nudges of all builds, during the block."""
        heard = HeardNudges()
        self._hearing.add(heard)
        try:
            yield heard
        finally:
            self._hearing.discard(heard)

    async def _listen_for_ever(self) -> None:
        has_warned = False
        while True:
            try:
                await self._listen()
                has_warned = False
            except Exception as error:  # whatever it was, a new connection is the remedy
                if not has_warned:
                    log.warning("not listening to the feeds; readers poll", error=error)
                has_warned = True
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen(self) -> None:
        """Listen until the connection ends."""
        async with listen(self._sessions, self._nudge) as connection:
            log.info("listening to the feeds")
            self._nudge_all()  # for what was announced while this was not listening
            while not await connection.ends_within(_CHECK_SECONDS):
                await connection.check()

    def _nudge(self, build_id: str) -> None:
        for nudged in self._waiting.get(build_id, ()):
            nudged.set()
        for heard in self._hearing:
            heard.hear(build_id)

    def _nudge_all(self) -> None:
        for readers in self._waiting.values():
            for nudged in readers:
                nudged.set()
        if self._has_listened:
            for heard in self._hearing:
                heard.miss()
        self._has_listened = True
