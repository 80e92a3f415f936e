"""What the API says as JSON is compressed; what is followed live, or is compressed already, is not."""

import gzip
import json
from collections.abc import AsyncIterator

import pytest

from local.stack import LocalStack
from tests.harness.api_server import RunningApi, new_database, running_api, settings_for

_ASKS = {"Accept-Encoding": "gzip, br"}


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    async with running_api(settings_for(await new_database(stack), stack.environment), stack.environment) as running:
        yield running


async def test_json_is_compressed_for_those_who_can_read_that(api: RunningApi) -> None:
    for number in range(20):
        await api.project(name=f"Number {number}")
    async with api.http.stream("GET", "/v1/projects", headers=_ASKS) as answer:
        raw = b"".join([piece async for piece in answer.aiter_raw()])
    assert (answer.headers["Content-Encoding"], answer.headers["Content-Length"]) == ("gzip", str(len(raw)))
    assert "Accept-Encoding" in answer.headers["Vary"]
    plain = await api.http.get("/v1/projects", headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    assert json.loads(gzip.decompress(raw)) == plain.json()
    assert len(raw) < len(plain.content) / 2


async def test_short_answers_and_live_feeds_are_sent_as_they_are(api: RunningApi) -> None:
    assert "Content-Encoding" not in (await api.http.get("/healthz", headers=_ASKS)).headers
    build = await api.build()
    async with api.http.stream("GET", f"/v1/builds/{build}/events", headers=_ASKS) as feed:
        assert (feed.status_code, feed.headers.get("Content-Encoding")) == (200, None)
