"""Connections: one engine for each process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

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


class Sessions:
    """Where transactions take their connections from; see `db/transaction.py`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.statements = engine.execution_options(isolation_level="AUTOCOMMIT")
        """The engine's connections in autocommit: each statement is a transaction of its own, unless one is begun."""


def make_sessions(engine: AsyncEngine) -> Sessions:
    """Let transactions use the engine."""
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
