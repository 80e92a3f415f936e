"""`python -m api` stopped by its supervisor while founders follow their builds."""

import asyncio
import json
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from db.feed import append_events
from db.transaction import transaction
from domain.events import NarrationEvent
from local.ports import Ports
from local.postgres import api_database_url
from local.stack import LocalStack
from tests.harness.api_server import TOKEN, RunningApi, new_database, running_api, settings_for
from tests.harness.wait import DEADLINE, wait_until

ROOT = Path(__file__).parents[3]

VIEWERS = 50

_REQUEST = "GET /v1/builds/{build}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n"


@asynccontextmanager
async def _api_process(stack: LocalStack, database_url: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """Run the API as a process; it is killed at the end if it still runs. Yields its port too."""
    ports = Ports()
    port = ports.choose(set())
    ports.release()
    own = {"DATABASE_URL": api_database_url(database_url), "API_TOKEN": TOKEN}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "api", "--port", str(port)),
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **stack.environment, **own},
        stderr=asyncio.subprocess.PIPE,
    )

    async def answers() -> bool:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return True
        assert process.returncode is None, "the API did not start"
        return False

    try:
        await wait_until(answers)
        yield process, port
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_a_stopped_api_ends_its_feeds(stack: LocalStack, signum: signal.Signals) -> None:
    database_url = await new_database(stack)
    async with running_api(settings_for(database_url), stack.environment) as starter:
        builds = [await starter.build() for _ in range(2)]
        for build in builds:
            async with transaction(starter.sessions) as tx:
                await append_events(tx, uuid.UUID(build), [NarrationEvent(text="A start.")], turn=1)
        async with _api_process(stack, database_url) as (process, port):
            opened = [await _open_feed(port, builds[number % len(builds)]) for number in range(VIEWERS)]
            feeds = [reader for reader, _ in opened]
            heads = await asyncio.gather(*(feed.readuntil(b"event: narration") for feed in feeds))
            assert all(head.startswith(b"HTTP/1.1 200") for head in heads)
            process.send_signal(signum)
            _, log = await asyncio.wait_for(process.communicate(), DEADLINE)
            rests = await asyncio.gather(*(feed.read() for feed in feeds))
        for _, writer in opened:
            writer.close()
        assert process.returncode == 0
        assert all(rest.endswith(b"\r\n0\r\n\r\n") for rest in rests), "a body was cut short"
        lines = [json.loads(line) for line in log.splitlines()]
        assert [line for line in lines if line["level"] not in ("info", "debug")] == []
        await _continues(starter, builds[0])


async def _open_feed(port: int, build: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_REQUEST.format(build=build, token=TOKEN).encode())
    await writer.drain()
    return reader, writer


async def _continues(api: RunningApi, build: str) -> None:
    """Another API goes on after the last event that the first one sent."""
    async with api.http.stream("GET", f"/v1/builds/{build}/events", headers={"Last-Event-ID": "0"}) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line.startswith("id: "):
                assert line == "id: 1"
                return
