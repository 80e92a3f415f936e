"""How long an event takes from its commit to those who watch, through the API in a process of its own.

The clock starts before the commit is sent, and the viewers are in this process, which shares the machine's cores with
the API: what is measured is a little more than what a viewer waits.
"""

import asyncio
import re
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from bench.ground import Ground, ground
from db.builds import BuildRequest, insert_build
from db.feed import append_events
from domain.events import EventType, NewEvent
from local.ports import Ports

_EVERY_SECONDS = 0.05
_JOIN_SECONDS = 60.0


@dataclass(frozen=True)
class Latency:
    """Milliseconds from commit to viewer, over all events and viewers."""

    viewers: int
    events: int
    p50: float
    p99: float
    longest: float

    def figures(self) -> dict[str, Any]:
        """All of them, for JSON."""
        return asdict(self)


class _Viewer(asyncio.Protocol):
    """One who watches, as cheaply as can be: looks in the stream for the numbers of events and the time it is."""

    _NUMBER = re.compile(rb'"bench":(\d+)')

    def __init__(self) -> None:
        self.seen: dict[int, float] = {}

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        for found in self._NUMBER.finditer(data):
            self.seen[int(found[1])] = now


@dataclass(frozen=True)
class Api:
    """The API in a process of its own."""

    port: int
    token: str

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def api_process(at: Ground) -> AsyncIterator[Api]:
    """`python -m api` on the stack, answering."""
    ports = Ports()
    port, token = ports.choose(set()), secrets.token_hex(16)
    ports.release()
    variables = {"API_TOKEN": token, "TEMPORAL_TASK_QUEUE": at.shop.settings.temporal_task_queue}
    async with at.program(["-m", "api", "--port", str(port)], variables):
        async with asyncio.timeout(_JOIN_SECONDS):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                except OSError:
                    await asyncio.sleep(0.05)
        yield Api(port, token)


async def measure(counts: Sequence[int], events: int) -> list[Latency]:
    """So many events for each number of viewers."""
    async with ground() as at, api_process(at) as api:
        await _one(at, api, 1, 5)  # everything has been used once
        return [await _one(at, api, count, events) for count in counts]


async def _one(at: Ground, api: Api, count: int, events: int) -> Latency:
    user_id = await at.shop.founder()
    project_id = await at.shop.project(user_id)
    async with at.shop.sessions.begin() as session:
        build = await insert_build(session, BuildRequest(project_id, user_id, "Watched."))
        assert build is not None
    transports, viewers = zip(*[await _watch(api, user_id, build.id) for _ in range(count)], strict=True)
    await _tell(at, build.id, 0)
    await _all_have(0, viewers)
    told = {}
    for number in range(1, events + 1):
        told[number] = await _tell(at, build.id, number)
        await asyncio.sleep(_EVERY_SECONDS)
    await _all_have(events, viewers)
    for transport in transports:
        transport.close()
    waited = sorted((viewer.seen[number] - since) * 1000 for viewer in viewers for number, since in told.items())
    return Latency(count, events, waited[len(waited) // 2], waited[int(len(waited) * 0.99)], waited[-1])


async def _watch(api: Api, user_id: str, build_id: uuid.UUID) -> tuple[asyncio.Transport, _Viewer]:
    transport, viewer = await asyncio.get_running_loop().create_connection(_Viewer, "127.0.0.1", api.port)
    lines = [
        f"GET /v1/builds/{build_id}/events HTTP/1.1",
        "Host: 127.0.0.1",
        "Accept: text/event-stream",
        f"Authorization: Bearer {api.token}",
        f"X-Cofounder-User: {user_id}",
    ]
    transport.write("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
    return transport, viewer


async def _all_have(number: int, viewers: Sequence[_Viewer]) -> None:
    async with asyncio.timeout(_JOIN_SECONDS):
        for viewer in viewers:
            while number not in viewer.seen:
                await asyncio.sleep(0.01)


async def _tell(at: Ground, build_id: uuid.UUID, number: int) -> float:
    """Append an event; returns when its commit was sent."""
    async with at.shop.session() as session:
        await append_events(session, build_id, [NewEvent(EventType.NARRATION, {"text": "I go on.", "bench": number})])
        committing = time.monotonic()
        await session.commit()
    return committing
