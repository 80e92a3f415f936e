"""One LISTEN connection per process, shared by all its readers of feeds."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator

import structlog

from db.events import listen
from db.session import Sessions

log = structlog.get_logger(__name__)

_RECONNECT_SECONDS = 1.0
_CHECK_SECONDS = 30.0
"""Check a silent connection after this many seconds."""


class FeedNudges:
    """Says when a build's feed may have grown. A nudge may be lost or doubled: readers select the events after the last
    one that they have."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
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

    async def _listen_for_ever(self) -> None:
        has_warned = False
        while True:
            try:
                await self._listen()
                has_warned = False
            except Exception as error:  # whatever it was, a new connection is the remedy
                if not has_warned:
                    log.warning("not listening to the feeds; readers poll", error=repr(error))
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

    def _nudge_all(self) -> None:
        for readers in self._waiting.values():
            for nudged in readers:
                nudged.set()
