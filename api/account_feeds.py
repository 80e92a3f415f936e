"""Live feeds of accounts: how each build stands that a viewer may see, whenever that changes. Nothing is replayed.

One task per process hears the nudges of all builds. It reads the builds that have changed once for each user who may
see them, with that user's own access, and hands the states to the user's viewers. A viewer that is slow gets only the
latest state of each build.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from api.build_state import BuildStateOut
from api.nudges import FeedNudges, HeardNudges
from db.build_states import BuildState, read_states, who_may_see
from db.money import budget_of
from db.session import Access, Sessions
from db.transaction import transaction
from domain.budget import Level
from domain.identity import Identity
from services.credentials import still_works

log = structlog.get_logger(__name__)

_GATHER_SECONDS = 0.5
"""Gather the builds that change within this time, so that a build that streams its narration is read twice a second."""

_ACCESS_SECONDS = 5.0
"""Check after this long whether the keys and sign-ins of the viewers still work."""

_RETRY_SECONDS = 1.0

_RELOAD = b"event: reload\r\ndata: {}\r\n\r\n"


@dataclass(eq=False)
class _Viewer:
    """One viewer. `pending` has the latest state of each build that it has not taken yet."""

    identity: Identity
    pending: dict[uuid.UUID, bytes] = field(default_factory=dict)
    must_reload: bool = False
    is_over: bool = False
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def offer(self, build_id: uuid.UUID, encoded: bytes) -> None:
        self.pending[build_id] = encoded
        self.arrived.set()

    def reload(self) -> None:
        self.must_reload = True
        self.arrived.set()

    def end(self) -> None:
        self.is_over = True
        self.arrived.set()

    async def next(self) -> bytes | None:
        """The next events; None if no more follow."""
        while not self.pending and not self.must_reload:
            if self.is_over:
                return None
            self.arrived.clear()
            await self.arrived.wait()
        taken = (_RELOAD if self.must_reload else b"") + b"".join(self.pending.values())
        self.pending.clear()
        self.must_reload = False
        return taken


class AccountFeeds:
    """All feeds of accounts that have viewers in this process."""

    def __init__(self, sessions: Sessions, nudges: FeedNudges) -> None:
        """Create them. `sessions`: with access to every row."""
        self._sessions = sessions
        self._nudges = nudges
        self._viewers: set[_Viewer] = set()
        self._task: asyncio.Task[None] | None = None
        self._is_ending = False

    def start(self) -> None:
        """Start to hear nudges."""
        self._task = asyncio.create_task(self._run())

    def end(self) -> None:
        """End every feed, before the process does. Viewers come back elsewhere."""
        self._is_ending = True
        for viewer in self._viewers:
            viewer.end()

    async def stop(self) -> None:
        """Stop hearing nudges."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def viewers(self) -> int:
        """The number of live viewers."""
        return len(self._viewers)

    async def follow(self, identity: Identity, begin: bytes) -> AsyncGenerator[bytes, None]:
        """Yield `begin`, then encoded events until the feed ends: with the identity's key or sign-in, or the process.

        Who has received `begin` misses nothing that changes from then on.
        """
        viewer = _Viewer(identity, is_over=self._is_ending)
        self._viewers.add(viewer)
        try:
            yield begin
            while (events := await viewer.next()) is not None:
                yield events
        finally:
            self._viewers.discard(viewer)

    async def _run(self) -> None:
        checked_at = time.monotonic()
        with self._nudges.all() as heard:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(
                        _ACCESS_SECONDS
                    ):  # not `wait_for`: in Python 3.11 it can swallow a cancel
                        await heard.arrived.wait()
                        await asyncio.sleep(_GATHER_SECONDS)
                try:
                    await self._hand_out(heard)
                    if time.monotonic() - checked_at >= _ACCESS_SECONDS:
                        await self._end_whose_credentials_ended()
                        checked_at = time.monotonic()
                except Exception as error:  # a feed that runs can't answer with an error
                    log.warning("cannot read the builds of accounts", error=error)
                    heard.miss()
                    await asyncio.sleep(_RETRY_SECONDS)

    async def _hand_out(self, heard: HeardNudges) -> None:
        build_ids, missed = heard.take()
        if missed:
            for viewer in self._viewers:
                viewer.reload()
        users = {viewer.identity.user_id for viewer in self._viewers}
        if not build_ids or not users:
            return
        async with transaction(self._sessions) as tx:
            of_users = await who_may_see(tx, build_ids, users)
        levels: dict[str, Level] = {}
        for user_id, may_see in of_users.items():
            try:
                encoded = await self._read(user_id, may_see, levels)
            except Exception as error:  # the other users' feeds go on
                log.warning("cannot read the builds of a user", user_id=user_id, error=error)
                for viewer in self._viewers_of(user_id):
                    viewer.reload()
                continue
            for viewer in self._viewers_of(user_id):
                for build_id, event in encoded.items():
                    viewer.offer(build_id, event)

    def _viewers_of(self, user_id: str) -> list[_Viewer]:
        return [viewer for viewer in self._viewers if viewer.identity.user_id == user_id]

    async def _read(
        self, user_id: str, build_ids: Collection[uuid.UUID], levels: dict[str, Level]
    ) -> dict[uuid.UUID, bytes]:
        """The events of these builds for the user. Adds the levels of further payers to `levels`."""
        async with transaction(self._sessions.acting(Access(user_id))) as tx:
            states = await read_states(tx, user_id, build_ids)
        for state in states:
            if state.payer not in levels:
                levels[state.payer] = await self._level(state.payer)
        return _encoded(states, levels)

    async def _level(self, payer: str) -> Level:
        async with transaction(self._sessions) as tx:
            return (await budget_of(tx, payer, datetime.now(UTC).date())).level

    async def _end_whose_credentials_ended(self) -> None:
        for identity in {viewer.identity for viewer in self._viewers}:
            async with transaction(self._sessions) as tx:
                works = await still_works(tx, identity)
            if not works:
                for viewer in self._viewers:
                    if viewer.identity == identity:
                        viewer.end()


def _encoded(states: Sequence[BuildState], levels: Mapping[str, Level]) -> dict[uuid.UUID, bytes]:
    return {state.build_id: _event(BuildStateOut.of(state, levels[state.payer])) for state in states}


def _event(state: BuildStateOut) -> bytes:
    return f"event: build\r\ndata: {state.model_dump_json()}\r\n\r\n".encode()
