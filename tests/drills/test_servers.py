"""What a frozen worker, a long day and a Temporal that is away do to everyone else."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db import money
from db.session import API_POOL, WORKER_POOL, Sessions, make_engine, make_sessions
from db.transaction import transaction
from local.stack import LocalStack
from tests.harness.api_server import new_database, running_api, settings_for
from tests.harness.build_rows import builds_of
from tests.harness.fault_proxy import FaultProxy
from tests.harness.wait import DEADLINE

Figure = Callable[[str], None]

_TODAY = datetime.now(UTC).date()
_CALLS = 30_000
_CALLS_AT_ONCE = 1_000
"""Rows in a transaction. A statement with all of them takes longer than a statement may on a busy machine."""


@pytest.fixture
async def sessions(stack: LocalStack) -> AsyncIterator[Sessions]:
    engine = make_engine(await new_database(stack), pool_size=3)
    yield make_sessions(engine)
    await engine.dispose()


@pytest.mark.fast
async def test_api_without_temporal(stack: LocalStack, figure: Figure) -> None:
    """D15: Temporal goes away under an API that is ready: it stays ready, and what is only read is served."""
    host, _, port = stack.environment["TEMPORAL_ADDRESS"].rpartition(":")
    proxy = FaultProxy(int(port))
    await proxy.start()
    environment = {**stack.environment, "TEMPORAL_ADDRESS": f"{host}:{proxy.port}"}
    try:
        async with running_api(settings_for(await new_database(stack), environment), environment) as api:
            build_id = await api.build()
            ready = (await api.http.get("/readyz")).json()
            assert (ready["ready"], ready["degraded"]) == (True, False)
            proxy.take_down()
            answers = [await api.http.get(path) for path in ("/readyz", f"/v1/builds/{build_id}")]
            assert [answer.status_code for answer in answers] == [200, 200]
            assert answers[0].json()["degraded"]
            project = await api.project()
            refused = await api.http.post(f"/v1/projects/{project}/builds", json={"goal": "Build it."})
            assert refused.status_code == 503
    finally:
        await proxy.close()
    figure("ready and degraded; a build is shown, a new one is refused with 503")


async def test_frozen_worker(sessions: Sessions, figure: Figure) -> None:
    """D16: a worker freezes while it holds its user's day: the server ends its transaction, and others go on."""
    await builds_of(sessions, "ada", 1)
    locked, thaws = asyncio.Event(), asyncio.Event()
    freezing = asyncio.create_task(_freeze(sessions, locked, thaws))
    await locked.wait()
    began, refused = time.monotonic(), 0
    while not await _can_lock(sessions):
        refused += 1
        assert time.monotonic() - began < DEADLINE
    seconds = time.monotonic() - began
    thaws.set()
    with pytest.raises(DBAPIError):
        await freezing
    figure(f"the day was free after {seconds:.0f} s, {refused} attempts were refused meanwhile")
    assert seconds < 120


async def _freeze(sessions: Sessions, locked: asyncio.Event, thaws: asyncio.Event) -> None:
    """Hold the day and do nothing until it thaws; then go on with a transaction that the server has ended."""
    async with transaction(sessions) as tx:
        await money.lock_day(tx, "ada", _TODAY)
        locked.set()
        await thaws.wait()
        await tx.execute(text("select 1"), {})


async def _can_lock(sessions: Sessions) -> bool:
    try:
        async with transaction(sessions) as tx:
            await money.lock_day(tx, "ada", _TODAY)
    except DBAPIError:
        return False
    return True


async def test_day_with_many_calls(sessions: Sessions, figure: Figure) -> None:
    """D17: lock the day of a user who has made 30,000 model calls on it, as each call does twice."""
    [build_id] = await builds_of(sessions, "ada", 1)
    entries = text(
        "insert into ledger (id, build_id, user_id, turn, day, model, cost, state, closed_at) "
        "select gen_random_uuid(), :build, 'ada', number, :day, 'm', 10, 'settled', now() "
        "from generate_series(cast(:first as integer), :first + :calls - 1) as number"
    )
    for first in range(1, _CALLS + 1, _CALLS_AT_ONCE):
        async with transaction(sessions) as tx:
            await money.lock_day(tx, "ada", _TODAY)
            calls = {"build": build_id, "day": _TODAY, "first": first, "calls": _CALLS_AT_ONCE}
            await tx.session.execute(entries, calls)
    took: list[float] = []
    for _ in range(200):
        async with transaction(sessions) as tx:
            began = time.perf_counter()
            state = await money.lock_day(tx, "ada", _TODAY)
            took.append(1000 * (time.perf_counter() - began))
    assert state.spent == 10 * _CALLS
    median = statistics.median(took)
    figure(f"{median:.2f} ms in the middle of {len(took)}")
    assert median < 5


async def test_connections(stack: LocalStack, figure: Figure) -> None:
    """D12: two workers and an API open every connection that they may at once, and the database gives each."""
    url = settings_for(await new_database(stack), stack.environment).database_url
    engines = [make_engine(url, pool_size=size) for size in (WORKER_POOL, WORKER_POOL, API_POOL)]
    async with AsyncExitStack() as closing:
        for engine in engines:
            closing.push_async_callback(engine.dispose)
        opened = [
            await closing.enter_async_context(engine.connect())
            for engine, size in zip(engines, (WORKER_POOL, WORKER_POOL, API_POOL), strict=True)
            for _ in range(2 * size)
        ]
        assert len({(await each.execute(text("select pg_backend_pid()"))).scalar() for each in opened}) == len(opened)
        most = (await opened[0].execute(text("show max_connections"))).scalar()
    figure(f"{len(opened)} connections of {most}")
