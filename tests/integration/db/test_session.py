"""Connections do not wait for ever: the server ends what takes too long, and both ends notice a dead peer."""

import socket
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.runtime.errors import to_application_error
from db.session import (
    COMMAND_SECONDS,
    KEEPALIVE_SECONDS,
    LOCK_SECONDS,
    STATEMENT_SECONDS,
    Sessions,
    make_engine,
    make_sessions,
)
from db.transaction import transaction
from domain.failures import DATABASE_UNAVAILABLE
from local.stack import LocalStack

_SETTINGS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")


@pytest.fixture
async def engine(stack: LocalStack) -> AsyncIterator[AsyncEngine]:
    engine = make_engine(stack.environment["DATABASE_URL"], pool_size=2)
    yield engine
    await engine.dispose()


async def _shown(engine: AsyncEngine, *names: str) -> list[str]:
    async with engine.connect() as connection:
        return [str(await connection.scalar(text(f"show {name}"))) for name in names]


async def test_statements_locks_and_idle_transactions_are_limited(engine: AsyncEngine) -> None:
    assert await _shown(engine, *_SETTINGS) == ["1min", "20s", "1min"]
    assert LOCK_SECONDS < STATEMENT_SECONDS < COMMAND_SECONDS


async def test_a_migration_may_take_as_long_as_it_takes(stack: LocalStack) -> None:
    engine = make_engine(stack.environment["DATABASE_URL"], pool_size=1, limited=False)
    assert await _shown(engine, *_SETTINGS) == ["0", "0", "0"]
    await engine.dispose()


async def _read_top_ups(sessions: Sessions) -> None:
    """Read a table, but wait only for a moment for its lock."""
    async with transaction(sessions) as tx:
        await tx.execute(text("set local lock_timeout = '100ms'"), {})
        await tx.execute(text("select 1 from top_ups"), {})


async def test_a_lock_that_is_held_too_long_is_tried_again(engine: AsyncEngine) -> None:
    """A timeout counts as the database being away, which uses up no attempts."""
    sessions = make_sessions(engine)
    async with transaction(sessions) as holder:
        await holder.execute(text("lock table top_ups in access exclusive mode"), {})
        with pytest.raises(OperationalError) as refused:
            await _read_top_ups(sessions)
    assert to_application_error(refused.value).type == DATABASE_UNAVAILABLE


async def test_the_client_asks_a_silent_server(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        link = driver._transport.get_extra_info("socket")
        if link.family == socket.AF_UNIX:
            pytest.skip("a server on a Unix socket is on this machine")
        assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == KEEPALIVE_SECONDS[0]
