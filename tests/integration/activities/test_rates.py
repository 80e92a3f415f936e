"""Calls of several workers against the buckets that they share, in PostgreSQL."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from time import monotonic

import pytest
from sqlalchemy import select

from activities.turn.rates import MOST_WAITING_OF_USER, Admission, CallRates
from db.models import ModelBucket
from db.session import Sessions, make_engine, make_sessions
from db.transaction import transaction
from domain.errors import RateLimited
from domain.pricing import Tokens
from domain.rates import AssumedRates, RateKind, Reading
from local.stack import LocalStack
from tests.harness.wait import DEADLINE

MANY = Reading(60_000_000, 60_000_000)


@pytest.fixture
async def sessions(stack: LocalStack) -> AsyncIterator[Sessions]:
    engine = make_engine(stack.environment["DATABASE_URL"], pool_size=5)
    yield make_sessions(engine)
    await engine.dispose()


@pytest.fixture
def model() -> str:
    return f"model-{uuid.uuid4()}"


async def admitted(rates: CallRates, model: str, user_id: str = "u", patience: float = DEADLINE) -> Admission:
    admission = await rates.admit(model, user_id, 10, patience)
    assert admission is not None
    return admission


async def learn(rates: CallRates, model: str, requests: Reading) -> None:
    """Make a call whose answer names the limits."""
    first = await admitted(rates, model)
    first.note_limits({RateKind.REQUESTS: requests, RateKind.INPUT: MANY, RateKind.OUTPUT: MANY})
    first.close()


async def buckets(sessions: Sessions, model: str) -> dict[str, ModelBucket]:
    async with transaction(sessions) as tx:
        rows = await tx.session.scalars(select(ModelBucket).where(ModelBucket.model == model))
        return {row.kind: row for row in rows}


async def test_limits_are_assumed_until_an_answer_names_them(sessions: Sessions, model: str) -> None:
    rates = CallRates(sessions, {model: AssumedRates(requests=6, input=6000, output=6000)})
    first = await admitted(rates, model)
    assert (await buckets(sessions, model))["requests"].per_minute == 6
    assert await rates.admit(model, "u", 10, 0.5) is None, "the bucket had one request"
    waiting = asyncio.create_task(admitted(rates, model))
    await asyncio.sleep(0.1)
    first.note_limits({RateKind.REQUESTS: Reading(6000, 5999)})
    await asyncio.wait_for(waiting, DEADLINE)
    rows = await buckets(sessions, model)
    assert (rows["requests"].per_minute, rows["input"].per_minute) == (6000, None)
    assert rows["requests"].learned


async def test_an_api_without_limits_is_asked_without_waiting(sessions: Sessions, model: str) -> None:
    rates = CallRates(sessions)
    (await admitted(rates, model)).note_limits({})
    began = monotonic()
    for _ in range(1000):
        await admitted(rates, model)
    assert monotonic() - began < 60
    assert not rates.is_limited(model)


async def test_two_workers_share_a_bucket(sessions: Sessions, model: str) -> None:
    workers = [CallRates(sessions), CallRates(sessions)]
    await learn(workers[0], model, Reading(300, 0))  # 5 a second, and nothing is left
    await admitted(workers[0], model)
    began, calls = monotonic(), 20
    await asyncio.gather(*(admitted(workers[number % 2], model, f"u{number}") for number in range(calls)))
    assert monotonic() - began > calls / 5 * 0.7


async def test_a_refusal_stops_every_worker(sessions: Sessions, model: str) -> None:
    workers = [CallRates(sessions), CallRates(sessions)]
    await learn(workers[0], model, MANY)
    await workers[0].note_refusal(model, RateLimited("Slow.", 4.0))
    began = monotonic()
    assert await workers[1].admit(model, "u", 10, 0.5) is None
    assert workers[1].seconds_to_wait(model) == 10
    await admitted(workers[1], model)
    assert monotonic() - began > 3


async def test_what_a_call_did_not_take_goes_back(sessions: Sessions, model: str) -> None:
    rates = CallRates(sessions)
    await learn(rates, model, Reading(600, 600))
    call = await admitted(rates, model)
    before = (await buckets(sessions, model))["output"].level
    call.note_limits({})
    call.noting(lambda *_: None)(Tokens(input=5, cache_read=10**6, output=2_000_000), "req", ())
    call.close()
    await rates.note_refusal(model, RateLimited("Slow.", 1.0))
    rows = await buckets(sessions, model)
    assert rows["output"].level < before - 1_000_000, "it produced more than was expected"
    assert rows["input"].level <= 0, "a refusal empties it"


async def test_calls_made_before_the_limits_were_known_give_nothing_back(sessions: Sessions, model: str) -> None:
    rates = CallRates(sessions)
    first, *others = [await admitted(rates, model) for _ in range(5)]
    first.note_limits({RateKind.REQUESTS: MANY, RateKind.INPUT: MANY, RateKind.OUTPUT: Reading(60, 0)})
    assert await rates.admit(model, "u", 10, 0.5) is None, "nothing is left"
    for each in others:
        each.note_limits({RateKind.REQUESTS: MANY, RateKind.INPUT: MANY, RateKind.OUTPUT: Reading(60, 0)})
        each.noting(lambda *_: None)(Tokens(input=5, output=34), "req", ())
        each.close()
    assert await rates.admit(model, "u", 10, 0.5) is None, "they took nothing, so nothing goes back"
    assert (await buckets(sessions, model))["output"].level < -100, "what they produced is owed"


async def test_the_user_served_least_goes_next(sessions: Sessions, model: str) -> None:
    rates = CallRates(sessions)
    await learn(rates, model, Reading(240, 0))
    order: list[str] = []

    async def call(user_id: str) -> None:
        await admitted(rates, model, user_id)
        order.append(user_id)

    crowd = [asyncio.create_task(call("a")) for _ in range(MOST_WAITING_OF_USER)]
    await asyncio.sleep(0.5)
    await call("b")
    assert order.count("a") <= 12, "b waits behind all of a's calls"
    await asyncio.gather(*crowd)


async def test_one_user_does_not_fill_the_line(sessions: Sessions, model: str) -> None:
    rates = CallRates(sessions)
    await learn(rates, model, Reading(1, 0))
    crowd = [asyncio.create_task(rates.admit(model, "a", 10, 5)) for _ in range(MOST_WAITING_OF_USER)]
    await asyncio.sleep(0.1)
    began = monotonic()
    assert await rates.admit(model, "a", 10, 60) is None
    assert monotonic() - began < 5
    other = asyncio.create_task(rates.admit(model, "b", 10, 1))
    assert await other is None, "b waits in the line"
    for task in crowd:
        task.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)


async def test_a_database_that_does_not_answer_fails_the_calls_that_wait(model: str) -> None:
    engine = make_engine("postgresql+asyncpg://user@127.0.0.1:1/none")
    rates = CallRates(make_sessions(engine))
    with pytest.raises(OSError):  # noqa: PT011 - asyncio's own, and its text depends on the system
        await rates.admit(model, "u", 10, DEADLINE)
    await engine.dispose()
