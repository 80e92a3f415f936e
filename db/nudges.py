"""Nudges for the readers of feeds, sent after the commits: several builds' in one transaction.

PostgreSQL keeps notifications in the order of the commits: a transaction with a NOTIFY locks out all others that have
one, in the whole server, until its commit is flushed. What every build writes several times a turn therefore sends
none; this sender's transaction has nothing to flush.
"""

import asyncio
import contextvars
import uuid
from collections.abc import Set

import asyncpg
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from db.connections import PooledConnection

log = structlog.get_logger(__name__)

CHANNEL = "cofounder_events"
"""NOTIFY channel; the payload is a build's id. Readers then select the events after the last one that they have."""

GATHER_SECONDS = 0.05
"""Gather the builds that append within this time: so a process sends no more than twenty times a second."""

_CLOSE_SECONDS = 5.0
"""At the end of the process, wait this long for a database that does not answer."""

_SEND = """
select set_config('synchronous_commit', 'off', true), count(pg_notify($1, build)) from unnest($2::text[]) as build
"""


class NudgeSender:
    """Sends one process's nudges. One that is lost, with the process or the connection, is made up for by readers:
    they look by themselves after some seconds, and at what the build appends next."""

    def __init__(self, statements: AsyncEngine) -> None:
        """Create it. `statements`: its connections are in autocommit."""
        self._statements = statements
        self._builds: set[uuid.UUID] = set()
        self._task: asyncio.Task[None] | None = None

    def add(self, builds: Set[uuid.UUID]) -> None:
        """Send nudges for these builds soon. Their events are committed."""
        if not builds:
            return
        self._builds |= builds
        if self._task is None or self._task.done():
            # In a context of its own: it acts for all builds, not for the one whose logs and trace are at hand.
            self._task = asyncio.create_task(self._run(), context=contextvars.Context())

    async def close(self) -> None:
        """Wait until all nudges are sent, or a database that does not answer has had its time."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=_CLOSE_SECONDS)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._builds:
            await asyncio.sleep(GATHER_SECONDS)
            builds, self._builds = self._builds, set()
            try:
                await self._send(builds)
            except (OSError, SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("readers of feeds are not nudged", builds=len(builds), error=error)

    async def _send(self, builds: Set[uuid.UUID]) -> None:
        connection = await PooledConnection.open(self._statements)
        try:
            await connection.driver.fetch(_SEND, CHANNEL, [str(each) for each in builds])
        finally:
            await connection.close()
