"""The live feed over HTTP: nothing lost, nothing doubled, nothing out of order, whoever goes away in between."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from sqlalchemy import func, text, update

from console.api_client import ApiClient, ApiProblem
from db.feed import CHANNEL, append_events
from db.models import Build
from domain.events import EventType, NewEvent
from local.stack import LocalStack
from tests.integration.api_server import TOKEN, RunningApi, new_database, running_api, settings_for


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    async with running_api(settings_for(await new_database(stack)), stack.environment) as running:
        yield running


@pytest.fixture
async def client(api: RunningApi) -> AsyncIterator[ApiClient]:
    async with ApiClient(api.url, TOKEN) as opened:
        yield opened


async def _say(api: RunningApi, build: str, *texts: str) -> None:
    async with api.sessions.begin() as session:
        events = [NewEvent(EventType.NARRATION, {"text": each}, turn=1) for each in texts]
        await append_events(session, uuid.UUID(build), events)


async def _close(api: RunningApi, build: str) -> None:
    async with api.sessions.begin() as session:
        changes = {"status": "failed", "closed_at": func.now()}
        await session.execute(update(Build).where(Build.id == uuid.UUID(build)).values(**changes))
        await append_events(session, uuid.UUID(build), [NewEvent(EventType.STATUS, {"status": "failed"})])


async def _follow(client: ApiClient, build: str, after: int = 0, until: int | None = None) -> list[int]:
    """The ids of the events after one, to the end of the feed or until so many have come."""
    ids: list[int] = []
    async with aclosing(client.follow(build, after)) as events:
        async for event in events:
            ids.append(event.id)
            if len(ids) == until:
                break
    return ids


async def test_replay_from_anywhere_and_end(api: RunningApi) -> None:
    build = await api.build()
    await _say(api, build, "one", "two\nlines", "drei ✓")
    await _close(api, build)
    path = f"/v1/builds/{build}/events"
    whole = await api.http.get(path)
    assert whole.status_code == 200
    assert whole.headers["content-type"].startswith("text/event-stream")
    blocks = [block.splitlines() for block in whole.text.replace("\r\n", "\n").strip().split("\n\n")]
    assert [block[0] for block in blocks] == ["id: 1", "id: 2", "id: 3", "id: 4"]
    assert [block[1] for block in blocks] == ["event: narration"] * 3 + ["event: status"]
    assert '"turn":1' in blocks[1][2]
    assert "two\\nlines" in blocks[1][2]

    by_header = await api.http.get(path, headers={"Last-Event-ID": "2"})
    by_query = await api.http.get(path, params={"after": 2})
    assert by_header.text == by_query.text
    assert by_header.text.startswith("id: 3")
    header_wins = await api.http.get(path, params={"after": 0}, headers={"Last-Event-ID": "3"})
    assert header_wins.text.startswith("id: 4")
    for last in (4, 5000):
        over = await api.http.get(path, headers={"Last-Event-ID": str(last)})
        assert (over.status_code, over.text) == (204, "")


@pytest.mark.parametrize("last", ["x", "-1", "9223372036854775808", "1.5"])
async def test_last_event_id_is_checked(api: RunningApi, last: str) -> None:
    answer = await api.http.get(f"/v1/builds/{await api.build()}/events", headers={"Last-Event-ID": last})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "last-event-id"


async def test_more_events_than_one_page(api: RunningApi, client: ApiClient) -> None:
    build = await api.build()
    await _say(api, build, *map(str, range(1234)))
    await _close(api, build)
    assert await _follow(client, build) == list(range(1, 1236))


async def test_no_event_is_lost_or_doubled_while_writers_race(
    api: RunningApi, client: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.routes.events._POLL_SECONDS", 3600)  # nudges alone have to do
    build = await api.build()
    writers, each = 6, 20

    async def write(writer: int) -> None:
        chance = random.Random(writer)
        for number in range(each):
            async with api.sessions.begin() as session:
                said = NewEvent(EventType.NARRATION, {"text": f"{writer}:{number}"})
                await append_events(session, uuid.UUID(build), [said])
                # Transactions overlap; a sequence without the row's lock would commit out of order here.
                await asyncio.sleep(chance.random() * 0.003)

    async def read_with_breaks(seed: int) -> list[int]:
        chance, ids = random.Random(seed), list[int]()
        while True:
            part = await _follow(client, build, ids[-1] if ids else 0, until=chance.randint(1, 20))
            ids += part
            if len(ids) > writers * each:
                return ids

    readers = [asyncio.create_task(read_with_breaks(seed)) for seed in range(2)]
    readers += [asyncio.create_task(_follow(client, build)) for _ in range(2)]
    await asyncio.gather(*(write(writer) for writer in range(writers)))
    await _close(api, build)
    expected = list(range(1, writers * each + 2))
    for ids in await asyncio.gather(*readers):
        assert ids == expected


async def test_reader_survives_the_loss_of_the_listener(api: RunningApi, client: ApiClient) -> None:
    build = await api.build()
    reading = asyncio.create_task(_follow(client, build))
    await _say(api, build, "before")
    async with api.sessions.begin() as session:
        ended = await session.scalar(
            text(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                " where datname = current_database() and query ilike :query and pid <> pg_backend_pid()"
            ),
            {"query": f"LISTEN%{CHANNEL}%"},
        )
    assert ended == 1
    await _say(api, build, "while nobody listens")
    await _close(api, build)
    assert await reading == [1, 2, 3]


async def test_reader_survives_an_api_that_goes_and_comes_back(api: RunningApi, stack: LocalStack) -> None:
    build = await api.build()
    troubles: list[str | None] = []
    ids: list[int] = []
    async with running_api(api.services.settings, stack.environment) as first:
        port = int(first.url.rpartition(":")[2])
        client = ApiClient(first.url, TOKEN)

        async def read() -> None:
            async for event in client.follow(build, on_trouble=troubles.append):
                ids.append(event.id)

        reading = asyncio.create_task(read())
        await _say(api, build, "one")
        while not ids:
            await asyncio.sleep(0.01)
    await _say(api, build, "two")
    while not any(troubles):
        await asyncio.sleep(0.01)
    async with running_api(api.services.settings, stack.environment, port=port):
        await _close(api, build)
        await reading
    await client.__aexit__()
    assert ids == [1, 2, 3]
    assert troubles[-1] is None


async def test_unknown_build_is_told_at_once(client: ApiClient) -> None:
    with pytest.raises(ApiProblem, match="There is no build"):
        await _follow(client, str(uuid.uuid4()))
