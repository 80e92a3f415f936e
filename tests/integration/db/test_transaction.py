"""Direct SQL: committed whole or not at all, with the errors of a session, and without broken connections."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.pool import QueuePool

from activities.runtime.errors import to_application_error
from db.models import User
from db.session import Sessions, make_engine, make_sessions
from db.transaction import autocommit, transaction
from domain.failures import DATABASE_UNAVAILABLE
from local.stack import LocalStack
from tests.harness.wait import DEADLINE, wait_until

_ADD = text("insert into users (id) values (:id)")
_FIND = text("select id from users where id = :id")
_ONE = text("select cast(:value as integer)")
_SLEEP = text("select pg_sleep(3600)")
_ASLEEP = text("select count(*) from pg_stat_activity where query = 'select pg_sleep(3600)' and state = 'active'")


class _Stop(Exception):
    pass


@pytest.fixture
async def sessions(stack: LocalStack) -> AsyncIterator[Sessions]:
    """Sessions on a single connection: each step of a test gets the connection that the last one left."""
    engine = make_engine(stack.environment["DATABASE_URL"], pool_size=1)
    yield make_sessions(engine)
    await engine.dispose()


async def _is_there(sessions: Sessions, user_id: str) -> bool:
    async with autocommit(sessions) as tx:
        return (await tx.execute(_FIND, {"id": user_id})).first() is not None


async def test_a_transaction_is_committed_whole_or_not_at_all(sessions: Sessions) -> None:
    kept, dropped = str(uuid.uuid4()), str(uuid.uuid4())
    async with transaction(sessions) as tx:
        await tx.execute(_ADD, {"id": kept})
        assert not await _is_there(sessions, kept), "other connections must not see it before the commit"
    assert await _is_there(sessions, kept)
    with contextlib.suppress(_Stop):
        async with transaction(sessions) as tx:
            await tx.execute(_ADD, {"id": dropped})
            raise _Stop
    assert not await _is_there(sessions, dropped)


async def test_the_orm_works_in_the_same_transaction(sessions: Sessions) -> None:
    one, other = str(uuid.uuid4()), str(uuid.uuid4())
    async with transaction(sessions) as tx:
        tx.session.add(User(id=one))
        assert (await tx.execute(_FIND, {"id": one})).one()[0] == one, "the tx must be flushed first"
        await tx.execute(_ADD, {"id": other})
        assert (await tx.session.get_one(User, other)).plan
        (await tx.session.get_one(User, one)).suspended = True
    async with transaction(sessions) as tx:
        assert (await tx.session.get_one(User, one)).suspended
    with contextlib.suppress(_Stop):
        async with transaction(sessions) as tx:
            (await tx.session.get_one(User, one)).suspended = False
            await tx.session.flush()
            raise _Stop
    async with transaction(sessions) as tx:
        assert (await tx.session.get_one(User, one)).suspended


async def test_errors_are_those_of_a_session(sessions: Sessions) -> None:
    user_id = str(uuid.uuid4())
    async with autocommit(sessions) as tx:
        await tx.execute(_ADD, {"id": user_id})
    with pytest.raises(IntegrityError) as found:
        async with transaction(sessions) as tx:
            await tx.execute(_ADD, {"id": user_id})
    assert user_id not in str(found.value).partition("DETAIL")[0]
    with pytest.raises(ProgrammingError):
        async with autocommit(sessions) as tx:
            await tx.execute(text("select nothing from nowhere"), {})
    with pytest.raises(DataError):
        async with autocommit(sessions) as tx:
            await tx.execute(text("select 1 / cast(:value as integer)"), {"value": 0})
    async with autocommit(sessions) as tx:
        assert (await tx.execute(_ONE, {"value": 3})).scalar() == 3


async def test_an_error_that_was_not_noticed_is_not_taken_for_a_commit(sessions: Sessions) -> None:
    user_id = str(uuid.uuid4())

    async def work() -> None:
        async with transaction(sessions) as tx:
            await tx.execute(_ADD, {"id": user_id})
            with contextlib.suppress(ProgrammingError):
                await tx.execute(text("select nothing from nowhere"), {})

    with pytest.raises(OperationalError, match="not noticed"):
        await work()
    assert not await _is_there(sessions, user_id)


async def test_a_cancel_in_a_statement_rolls_back_and_leaves_a_connection_that_works(sessions: Sessions) -> None:
    user_id = str(uuid.uuid4())

    async def work() -> None:
        async with transaction(sessions) as tx:
            await tx.execute(_ADD, {"id": user_id})
            await tx.execute(_SLEEP, {})

    async def sleeps() -> bool:
        async with transaction(sessions) as tx:
            return bool(await tx.session.scalar(_ASLEEP))

    working = asyncio.create_task(work())
    await wait_until(sleeps)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    async with asyncio.timeout(DEADLINE):
        assert not await _is_there(sessions, user_id)
        async with transaction(sessions) as tx:
            tx.session.add(User(id=user_id))
    assert await _is_there(sessions, user_id)


async def test_a_connection_that_the_server_ends_is_reported_and_replaced(sessions: Sessions) -> None:
    end = text("select pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(DBAPIError) as found:
        async with transaction(sessions) as tx:
            await tx.execute(end, {})
    assert to_application_error(found.value).type == DATABASE_UNAVAILABLE
    async with transaction(sessions) as tx:
        assert (await tx.execute(_ONE, {"value": 4})).scalar() == 4


async def test_only_a_session_needs_a_connection_of_sqlalchemys(sessions: Sessions) -> None:
    async with autocommit(sessions) as tx:  # the engine's first connection asks the server for its version
        await tx.execute(_ONE, {"value": 1})
    made = 0

    @event.listens_for(sessions.statements.sync_engine, "engine_connect")
    def count(_: object) -> None:
        nonlocal made
        made += 1

    async with transaction(sessions) as tx:
        await tx.execute(_ONE, {"value": 1})
    assert made == 0
    async with transaction(sessions) as tx:
        assert await tx.session.scalar(_FIND, {"id": "nobody"}) is None
        assert await tx.session.scalar(_FIND, {"id": "nobody"}) is None
    assert made == 1


@pytest.mark.parametrize("with_session", [False, True])
async def test_every_connection_goes_back(sessions: Sessions, *, with_session: bool) -> None:
    pool = sessions.statements.pool
    assert isinstance(pool, QueuePool)

    async def work(statement: str) -> None:
        async with transaction(sessions) as tx:
            if with_session:
                await tx.session.scalar(text("select 1"))
            await tx.execute(text(statement), {})

    await asyncio.gather(work("select 1"), work("select 1"))
    assert (pool.checkedout(), pool.checkedin()) == (0, 1), "the one beyond the pool's size is closed"
    for statement in ("select nothing from nowhere", "select pg_terminate_backend(pg_backend_pid())"):
        with pytest.raises(DBAPIError):
            await work(statement)
        assert pool.checkedout() == 0
    working = [asyncio.create_task(work("select pg_sleep(3600)")) for _ in range(2)]
    await wait_until(lambda: pool.checkedout() == 2)
    for task in working:
        task.cancel()
    await asyncio.wait(working)
    assert pool.checkedout() == 0
    await work("select 1")
