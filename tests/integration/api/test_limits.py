"""What one identity may ask for: requests, new projects and feeds, over all APIs on the database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from sqlalchemy import delete, func, select, update

from cli.api_client import ApiClient
from db.models import RequestBucket
from db.request_buckets import take_token
from db.session import Sessions, open_sessions
from db.transaction import autocommit, transaction
from domain.request_limits import RequestClass, RequestLimit
from local.stack import LocalStack
from tests.harness.api_server import (
    AS_OPERATOR,
    OPERATORS,
    TOKEN,
    RunningApi,
    new_database,
    running_api,
    settings_for,
)
from tests.harness.wait import wait_until

UNKNOWN = "/v1/builds/00000000-0000-0000-0000-000000000000"
SLOW: dict[str, Any] = {
    # One a minute: the next one comes long before that, on a busy machine too.
    "reads_per_minute": 1,
    "writes_per_minute": 1,
    "expensive_requests_per_minute": 1,
    "new_projects_per_day": 2,
    "failed_sign_ins_per_minute": 1,
    "open_feeds_per_user": 2,
    "api_operator_token": OPERATORS,
}


@pytest.fixture(scope="module")
async def database(stack: LocalStack) -> str:
    return await new_database(stack)


@asynccontextmanager
async def limited_api(stack: LocalStack, database: str, **changed: Any) -> AsyncIterator[RunningApi]:
    settings = settings_for(database, **{**SLOW, **changed})
    async with running_api(settings, stack.environment) as api:
        async with transaction(api.sessions) as tx:
            await tx.session.execute(delete(RequestBucket))
        yield api


def assert_too_many(answer: httpx2.Response, at_most: int = 60) -> None:
    assert answer.status_code == 429, answer.text
    assert answer.json()["type"] == "urn:cofounder:problem:too-many-requests"
    assert 1 <= int(answer.headers["retry-after"]) <= at_most
    assert answer.json()["retry_after_seconds"] == int(answer.headers["retry-after"])


async def test_requests_are_counted_by_class_over_all_apis(stack: LocalStack, database: str) -> None:
    async with limited_api(stack, database) as api, running_api(settings_for(database, **SLOW), {}) as other:
        assert (await api.http.get("/v1/builds")).status_code == 200
        assert_too_many(await other.http.get("/v1/builds"))
        assert_too_many(await api.http.get(UNKNOWN))
        assert (await api.http.get("/healthz")).status_code == 200

        assert (await api.http.post("/v1/projects", json={"x": 1})).status_code == 422
        assert_too_many(await api.http.post(f"{UNKNOWN}/wake"))
        assert (await api.http.get("/v1/builds", headers=AS_OPERATOR)).status_code == 200, "is someone else"

        async with transaction(api.sessions) as tx:
            await tx.session.execute(update(RequestBucket).values(at=func.now() - func.make_interval(0, 0, 0, 0, 0, 1)))
        assert (await api.http.get("/v1/builds")).status_code == 200


async def test_of_many_requests_at_once_as_many_pass_as_there_are_tokens(database: str) -> None:
    limit = RequestLimit(5, seconds=1e9)

    async def take(sessions: Sessions) -> int | None:
        async with autocommit(sessions) as tx:
            return await take_token(tx, "many", RequestClass.READ, limit)

    async with open_sessions(database) as sessions:
        waits = await asyncio.gather(*[take(sessions) for _ in range(20)])
    assert waits.count(None) == 5
    assert all(wait is None or wait > 1e8 for wait in waits)


async def test_costly_requests_and_new_projects_have_limits_of_their_own(stack: LocalStack, database: str) -> None:
    async with limited_api(stack, database, reads_per_minute=0, writes_per_minute=0) as api:
        project = await api.project()
        await api.build(project)
        assert_too_many(await api.http.post(f"/v1/projects/{project}/builds", json={"goal": "x"}))
        assert_too_many(await api.http.get(f"{UNKNOWN}/snapshots/current/archive"))
        assert_too_many(await api.http.post(f"{UNKNOWN}/preview"))
        await api.project()
        assert_too_many(await api.http.post("/v1/projects", json={}), at_most=43_200)
        assert (await api.http.get(f"/v1/projects/{project}")).status_code == 200


async def test_feeds_count_while_they_are_open(stack: LocalStack, database: str) -> None:
    off = dict.fromkeys(("reads_per_minute", "writes_per_minute", "new_projects_per_day"), 0)
    async with limited_api(stack, database, **off) as api:
        path = f"/v1/builds/{await api.build()}/events"
        async with api.http.stream("GET", path) as first, api.http.stream("GET", path) as second:
            assert (first.status_code, second.status_code) == (200, 200)
            assert_too_many(await api.http.get(path), at_most=10)

        async def is_open_again() -> bool:
            async with api.http.stream("GET", path) as feed:
                return feed.status_code == 200

        await wait_until(is_open_again)


async def test_wrong_credentials_are_counted_by_address(stack: LocalStack, database: str) -> None:
    wrong = {"Authorization": "Bearer wrong"}
    async with limited_api(stack, database, trusted_proxies=["127.0.0.1/32"]) as api:
        there = {"X-Forwarded-For": "203.0.113.9"}
        assert (await api.http.get("/v1/builds", headers={**wrong, **there})).status_code == 401
        assert_too_many(await api.http.get("/v1/builds", headers={**wrong, **there}))
        assert_too_many(await api.http.get("/v1/builds", headers=there), at_most=61)
        assert (await api.http.get("/v1/builds", headers={"X-Forwarded-For": "203.0.113.8"})).status_code == 200
        assert (await api.http.get("/v1/builds", headers=wrong)).status_code == 401, "another address"

        del api.http.headers["Authorization"]
        answers = [await api.http.get("/v1/builds") for _ in range(4)]
        assert [each.status_code for each in answers] == [401] * 4, "no one guesses without credentials"


async def test_a_database_that_is_away_is_not_too_many_requests() -> None:
    settings = settings_for("postgresql://user@127.0.0.1:1/nothing", **SLOW)
    async with running_api(settings, {}) as api:
        answers = [await api.http.get("/v1/builds") for _ in range(5)]
        assert [each.status_code for each in answers] == [503] * 5


async def test_zero_is_no_limit(stack: LocalStack, database: str) -> None:
    async with limited_api(stack, database, reads_per_minute=0) as api:
        assert {(await api.http.get("/v1/builds")).status_code for _ in range(5)} == {200}
        async with transaction(api.sessions) as tx:
            assert await tx.session.scalar(select(func.count()).select_from(RequestBucket)) == 0


async def test_the_command_line_waits_as_it_is_told_once(stack: LocalStack, database: str) -> None:
    async with limited_api(stack, database, reads_per_minute=60) as api, ApiClient(api.url, TOKEN) as client:
        async with transaction(api.sessions) as tx:
            tx.session.add(RequestBucket(identity="identity founder", kind="read", tokens=0, at=func.clock_timestamp()))
        assert "builds" in await client.list_builds()
