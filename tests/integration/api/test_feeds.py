"""The live feed over HTTP loses, doubles and reorders nothing, whichever side goes away in between."""

import asyncio
import random
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import pytest
from sqlalchemy import event, func, text, update

from cli.api_client import ApiClient, ApiProblem
from cli.feed_state import FeedState
from db.feed import append_events
from db.models import Build
from db.nudges import CHANNEL
from db.transaction import transaction
from domain.events import BuildEvent, NarrationEvent, StatusEvent
from local.ports import Ports
from local.stack import LocalStack
from observing.metrics import REGISTRY
from tests.harness.api_server import TOKEN, RunningApi, as_user, new_database, running_api, settings_for
from tests.harness.wait import wait_until


@pytest.fixture(scope="module")
async def api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    async with running_api(settings_for(await new_database(stack)), stack.environment) as running:
        yield running


@pytest.fixture
async def client(api: RunningApi) -> AsyncIterator[ApiClient]:
    async with ApiClient(api.url, TOKEN) as opened:
        yield opened


async def _say(api: RunningApi, build: str, *texts: str) -> None:
    async with transaction(api.sessions) as tx:
        await append_events(tx, uuid.UUID(build), [NarrationEvent(text=each) for each in texts], turn=1)


async def _close(api: RunningApi, build: str) -> None:
    async with transaction(api.sessions) as tx:
        changes = {"status": "failed", "closed_at": func.now()}
        await tx.session.execute(update(Build).where(Build.id == uuid.UUID(build)).values(**changes))
        await append_events(tx, uuid.UUID(build), [StatusEvent(status="failed")])


async def _follow(client: ApiClient, build: str, after: int = 0, until: int | None = None) -> list[int]:
    """Return the ids of the events after the given one, to the end of the feed or until enough have arrived."""
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
    assert blocks.pop(0) == ["retry: 2000"]
    assert [block[0] for block in blocks] == ["id: 1", "id: 2", "id: 3", "id: 4"]
    assert [block[1] for block in blocks] == ["event: narration"] * 3 + ["event: status"]
    assert '"turn":1' in blocks[1][2]
    assert "two\\nlines" in blocks[1][2]

    by_header = await api.http.get(path, headers={"Last-Event-ID": "2"})
    by_query = await api.http.get(path, params={"after": 2})
    assert by_header.text == by_query.text
    assert by_header.text.partition("\n\n")[2].startswith("id: 3")
    header_wins = await api.http.get(path, params={"after": 0}, headers={"Last-Event-ID": "3"})
    assert header_wins.text.partition("\n\n")[2].startswith("id: 4")
    for last in (4, 5000):
        over = await api.http.get(path, headers={"Last-Event-ID": str(last)})
        assert (over.status_code, over.text) == (204, "")


class _LaterEvent(BuildEvent):
    """An event of a type that the API does not know."""

    type = "of_tomorrow"
    text: str
    parts: list[int]


async def test_an_event_of_a_later_version_is_passed_on(api: RunningApi, client: ApiClient) -> None:
    build = await api.build()
    async with transaction(api.sessions) as tx:
        await append_events(tx, uuid.UUID(build), [_LaterEvent(text="New.", parts=[1])], turn=3)
    await _close(api, build)
    async with aclosing(client.follow(build, 0)) as events:
        later = await anext(events)
    assert (later.type, later.turn, later.data) == ("of_tomorrow", 3, {"text": "New.", "parts": [1]})
    [*_, line] = FeedState().apply(later).lines
    assert line.text == "of_tomorrow: text New."


async def test_past_events_come_in_pages_backwards(api: RunningApi) -> None:
    build = await api.build()
    path = f"/v1/builds/{build}/past-events"
    assert (await api.http.get(path)).json() == {"events": [], "next_before": None}
    await _say(api, build, "one", "two", "three")
    await _close(api, build)
    first = (await api.http.get(path, params={"limit": 2})).json()
    assert ([each["id"] for each in first["events"]], first["next_before"]) == ([4, 3], 3)
    assert first["events"][1]["data"] == {"text": "three"}
    rest = (await api.http.get(path, params={"limit": 2, "before": 3})).json()
    assert ([each["id"] for each in rest["events"]], rest["next_before"]) == ([2, 1], None)
    only = (await api.http.get(path, params={"type": ["status", "of_tomorrow"]})).json()
    assert [(each["id"], each["type"], each["turn"]) for each in only["events"]] == [(4, "status", None)]
    for wrong in ({"before": 0}, {"limit": 501}, {"type": "Status!"}):
        assert (await api.http.get(path, params=wrong)).status_code == 422
    assert (await api.http.get(path, headers=as_user("eve"))).status_code == 404


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
    monkeypatch.setattr("api.feeds._POLL_SECONDS", 3600)  # nudges must suffice
    build = await api.build()
    writers, each = 6, 20

    async def write(writer: int) -> None:
        chance = random.Random(writer)
        for number in range(each):
            async with transaction(api.sessions) as tx:
                await append_events(tx, uuid.UUID(build), [NarrationEvent(text=f"{writer}:{number}")])
                # Transactions overlap: without the row's lock, ids would be committed out of order.
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

    async def end_listener() -> int:
        async with transaction(api.sessions) as tx:
            ended = await tx.session.scalar(
                text(
                    "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                    " where datname = current_database() and query ilike :query and pid <> pg_backend_pid()"
                ),
                {"query": f"LISTEN%{CHANNEL}%"},
            )
            return int(ended or 0)

    assert await wait_until(end_listener) == 1
    await _say(api, build, "while no one listens")
    await _close(api, build)
    assert await reading == [1, 2, 3]


async def test_reader_survives_an_api_that_goes_and_comes_back(api: RunningApi, stack: LocalStack) -> None:
    build = await api.build()
    troubles: list[str | None] = []
    ids: list[int] = []
    ports = Ports()  # reserve it while the API is away
    port = ports.choose(set())
    async with running_api(api.settings, stack.environment, port=port) as first:
        client = ApiClient(first.url, TOKEN)

        async def read() -> None:
            async for event in client.follow(build, on_trouble=troubles.append):
                ids.append(event.id)

        reading = asyncio.create_task(read())
        await _say(api, build, "one")
        await wait_until(lambda: ids)
    await _say(api, build, "two")
    await wait_until(lambda: any(troubles))
    async with running_api(api.settings, stack.environment, port=port):
        await _close(api, build)
        await reading
    ports.release()
    await client.__aexit__()
    assert ids == [1, 2, 3]
    assert troubles[-1] is None


def _metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_many_viewers_cost_one_select_a_nudge(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.feeds._POLL_SECONDS", 3600)
    viewers, rounds = 200, 5
    build = await api.build()
    selects = 0

    def count(_c: object, _k: object, statement: str, *_: object) -> None:
        nonlocal selects
        selects += "LEFT OUTER JOIN events" in statement

    await _say(api, build, "before")
    async with AsyncExitStack() as open_feeds:
        feeds = [await open_feeds.enter_async_context(_raw_feed(api, build)) for _ in range(viewers)]
        await wait_until(lambda: api.resources.feeds.viewers(uuid.UUID(build)) >= viewers)
        seen: list[list[int]] = [await _read_ids(feed, 1) for feed in feeds]
        assert _metric("cofounder_feed_viewers", feed="build") == viewers
        delivered = _metric("cofounder_feed_lag_seconds_count")
        engine = api.resources.sessions.statements.sync_engine
        event.listen(engine, "before_cursor_execute", count)
        try:
            for number in range(rounds):
                await _say(api, build, str(number))
                for ids, feed in zip(seen, feeds, strict=True):
                    ids += await _read_ids(feed, 1)
        finally:
            event.remove(engine, "before_cursor_execute", count)
        assert seen == [list(range(1, rounds + 2))] * viewers
        assert rounds <= selects <= 2 * rounds
        assert _metric("cofounder_feed_lag_seconds_count") - delivered == pytest.approx(viewers * rounds, abs=viewers)
        await _close(api, build)
        for feed in feeds:
            assert await _read_ids(feed, 1) == [rounds + 2]
            assert await _read_ids(feed, 1) == []
    await wait_until(lambda: not api.resources.feeds.viewers(uuid.UUID(build)))


async def test_slow_viewer_is_dropped_alone(
    api: RunningApi, client: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.feeds._PENDING_EVENTS", 40)
    monkeypatch.setattr("api.routes.events._SLOW_VIEWER_SECONDS", 0.2)
    build = await api.build()
    events, long = 100, "x" * 100_000
    async with _raw_feed(api, build, receive_buffer=4096) as stuck:  # reads nothing until the end
        await wait_until(lambda: api.resources.feeds.viewers(uuid.UUID(build)))
        attentive = asyncio.create_task(_follow(client, build))
        for _ in range(events):
            await _say(api, build, long)
        # The API must not wait for the viewer that reads nothing.
        await wait_until(lambda: api.resources.feeds.viewers(uuid.UUID(build)) <= 1)
        await _close(api, build)
        assert await attentive == list(range(1, events + 2))
        got = await _read_ids(stuck, events + 1)
    assert got == list(range(1, len(got) + 1))
    assert len(got) < events
    again = await _follow(client, build, got[-1] if got else 0)
    assert got + again == list(range(1, events + 2))


async def test_viewer_that_is_ahead_or_behind_joins_without_a_gap(api: RunningApi, client: ApiClient) -> None:
    build = await api.build()
    await _say(api, build, *map(str, range(600)))  # more than a page
    readers = [asyncio.create_task(_follow(client, build, after)) for after in (0, 1, 599, 600, 601, 5000)]
    while api.resources.feeds.viewers(uuid.UUID(build)) < len(readers):
        await asyncio.sleep(0.01)
        await _say(api, build, "meanwhile")
    await _close(api, build)
    last = (await api.row(build)).last_event_id
    for after, reader in zip((0, 1, 599, 600, 601), readers, strict=False):
        assert await reader == list(range(after + 1, last + 1))
    assert await readers[-1] == []


async def test_silent_feed_has_a_heartbeat(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.routes.events._HEARTBEAT_SECONDS", 0.05)
    async with _raw_feed(api, await api.build()) as feed:
        while not (line := await feed.readline()).startswith(b": ping"):
            assert line


@asynccontextmanager
async def _raw_feed(
    api: RunningApi, build: str, receive_buffer: int | None = None
) -> AsyncIterator[asyncio.StreamReader]:
    """Open a connection that follows the build and reads only when the test does."""
    host, port = api.url.removeprefix("http://").split(":")
    opened = socket.socket()
    opened.setblocking(False)
    if receive_buffer is not None:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await asyncio.get_running_loop().sock_connect(opened, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=opened, limit=200_000 if receive_buffer else 65_536)
    request = f"GET /v1/builds/{build}/events HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    writer.write(request.encode())
    try:
        yield reader
    finally:
        writer.transport.abort()


async def _read_ids(feed: asyncio.StreamReader, number: int) -> list[int]:
    """Read the ids of the next whole events; fewer if the feed ends."""
    ids: list[int] = []
    found: int | None = None
    while len(ids) < number:
        try:
            line = await feed.readuntil(b"\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            break
        if line == b"0\r\n":  # the last chunk
            break
        if line.startswith(b"id: "):
            found = int(line[4:])
        elif line == b"\r\n" and found is not None:
            ids.append(found)
            found = None
    return ids


async def test_unknown_build_is_reported_at_once(client: ApiClient) -> None:
    with pytest.raises(ApiProblem, match="There is no build"):
        await _follow(client, str(uuid.uuid4()))
