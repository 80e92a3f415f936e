"""Connections: one engine for each process, one session for each transaction."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from domain.errors import DatabaseUnavailable

_UNDEFINED_TABLE = "42P01"

_TRUSTED_SECONDS = 10.0
"""A connection last used less than this many seconds ago counts as alive, unless the driver has seen it close."""


def make_engine(database_url: str, pool_size: int = 10) -> AsyncEngine:
    """Make an engine. It connects when it is first used; dispose of it when done."""
    engine = create_async_engine(
        database_url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_use_lifo=True,  # use few connections, so that each has most statements prepared
        pool_timeout=20,
        hide_parameters=True,  # what founders write must not reach error messages, and so histories and logs
        connect_args={"timeout": 10, "server_settings": {"application_name": "cofounder", "timezone": "UTC"}},
    )
    _check_before_use(engine)
    return engine


class Sessions(async_sessionmaker[AsyncSession]):
    """`async with sessions.begin() as session:` is one transaction, committed at the end of the block."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine, expire_on_commit=False)
        self.statements = engine.execution_options(isolation_level="AUTOCOMMIT")
        """The same connections in autocommit: each statement is a transaction of its own, unless one is begun."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Like `begin()`, but report a database that can't be used as a domain error.

        Do nothing but database work in the block: every other `OSError` would be reported as the database.

        Raises:
            DatabaseUnavailable: it does not answer, or `cofounder migrate` was not run.
        """
        try:
            async with self.begin() as session:
                yield session
        except ProgrammingError as error:
            if getattr(error.orig, "sqlstate", None) != _UNDEFINED_TABLE:
                raise
            detail = "The database has no tables yet. Run `cofounder migrate` on the machine of the API."
            raise DatabaseUnavailable(detail) from error
        # A bare asyncpg error comes from connecting; from queries it arrives wrapped.
        except (OSError, OperationalError, InterfaceError, PoolTimeoutError, asyncpg.PostgresError) as error:
            raise _does_not_answer() from error
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            raise _does_not_answer() from error


def _does_not_answer() -> DatabaseUnavailable:
    return DatabaseUnavailable("The database does not answer, so nothing was stored. Try again in a minute.", 10)


def make_sessions(engine: AsyncEngine) -> Sessions:
    """Make a factory of sessions on the engine."""
    return Sessions(engine)


@asynccontextmanager
async def open_sessions(database_url: str, pool_size: int = 10) -> AsyncIterator[Sessions]:
    """Make an engine and sessions on it; dispose of the engine at the end of the block."""
    engine = make_engine(database_url, pool_size)
    try:
        yield make_sessions(engine)
    finally:
        await engine.dispose()


def _check_before_use(engine: AsyncEngine) -> None:
    """Never hand out a dead connection, like `pool_pre_ping`, but without a ping each time.

    A ping takes three round trips, and a turn has half a dozen transactions.
    """
    dialect = engine.dialect

    @event.listens_for(engine.sync_engine, "checkin")
    def note_use(_: Any, entry: ConnectionPoolEntry) -> None:
        entry.info["used_at"] = monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def check(connection: Any, entry: ConnectionPoolEntry, _: Any) -> None:
        if connection.driver_connection.is_closed():
            raise DisconnectionError("the server has closed the connection")
        used_at = entry.info.get("used_at")
        if used_at is None or monotonic() - used_at < _TRUSTED_SECONDS:
            return
        try:
            dialect.do_ping(connection)
        except dialect.loaded_dbapi.Error as error:
            raise DisconnectionError("the connection is dead") from error
