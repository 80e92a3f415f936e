"""Connections of an engine's pool, for statements that go straight to the driver.

`AsyncEngine.connect` makes a `Connection` with its options, and closes it in a task of its own. A turn of a build takes
eight connections, which have nothing of either to do.
"""

from typing import Any

from sqlalchemy import Connection, PoolProxiedConnection
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.util import greenlet_spawn


class PooledConnection:
    """A connection that is taken from the pool until it is closed."""

    def __init__(self, engine: AsyncEngine, pooled: PoolProxiedConnection) -> None:
        self._engine = engine
        self._pooled = pooled
        self._of_session: AsyncConnection | None = None
        self.driver: Any = pooled.driver_connection
        """asyncpg's connection."""

    @classmethod
    async def open(cls, engine: AsyncEngine) -> "PooledConnection":
        """Take one from the pool.

        Raises:
            OSError, SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError: the pool has none, and a new one
            can't be made.
        """
        try:
            return cls(engine, await engine.raw_connection())
        except engine.dialect.loaded_dbapi.Error as error:
            raise OperationalError("connect", None, error, hide_parameters=True) from error

    def for_session(self) -> AsyncConnection:
        """The same connection for an ORM session, with the engine's options."""
        if self._of_session is None:
            self._of_session = AsyncConnection(self._engine, Connection(self._engine.sync_engine, self._pooled))
        return self._of_session

    async def invalidate(self) -> None:
        """Close it rather than give it back: the server ends what it was doing."""
        if self._of_session is not None:
            await self._of_session.invalidate()
        else:
            await greenlet_spawn(self._pooled.invalidate)

    async def close(self) -> None:
        """Give it back to the pool, or close it if the pool has enough."""
        if self._of_session is not None:
            await self._of_session.close()
        else:
            await greenlet_spawn(self._pooled.close)
