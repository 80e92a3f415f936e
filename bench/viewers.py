"""Measure how long an event takes from its commit to its viewers, through the API in a process of its own.

The clock starts before the commit is sent, and the viewers run in this process, which shares the machine's cores with
the API. So the figures are a little higher than what a real viewer waits.
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

from bench.deployment import BenchStack, bench_stack
from db.builds import BuildRequest, insert_build
from db.feed import append_events
from db.transaction import transaction
from domain.events import NarrationEvent
from local.ports import Ports
from local.postgres import api_database_url

_INTERVAL_SECONDS = 0.05
"""Seconds between two events."""

_TIMEOUT_SECONDS = 60.0
"""Seconds after which a start or a delivery counts as failed."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds from commit to viewer, over all events and viewers."""

    viewers: int
    events: int
    p50: float
    p99: float
    longest: float

    def figures(self) -> dict[str, Any]:
        """All figures, for JSON."""
        return asdict(self)


class _Viewer(asyncio.Protocol):
    """A viewer that costs little CPU: notes each event number in the stream and when it arrived.

    `refusal`: what the API answered instead of a stream.
    """

    _NUMBER = re.compile(rb'"claim":"(\d+)"')

    def __init__(self) -> None:
        self.arrivals: dict[int, float] = {}
        self.refusal: str | None = None
        self._has_status = False

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        if not self._has_status:
            self._has_status = True
            if not data.startswith(b"HTTP/1.1 200 "):
                self.refusal = data.decode(errors="replace")
        for match in self._NUMBER.finditer(data):
            self.arrivals[int(match[1])] = now


@dataclass(frozen=True)
class Api:
    """The API in a process of its own."""

    port: int
    token: str

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def api_process(bench: BenchStack) -> AsyncIterator[Api]:
    """Run `python -m api` on the stack while the block runs; ready when the block begins."""
    ports = Ports()
    port, token = ports.choose(set()), secrets.token_hex(16)
    ports.release()
    tokens = {"API_TOKEN": secrets.token_hex(16), "API_OPERATOR_TOKEN": token}  # an operator acts for the viewers
    unlimited = {"OPEN_FEEDS_PER_USER": "0", "READS_PER_MINUTE": "0"}
    variables = {
        **{"DATABASE_URL": api_database_url(bench.servers.environment["DATABASE_URL"]), **tokens, **unlimited},
        "TEMPORAL_TASK_QUEUE": bench.harness.settings.temporal_task_queue,
    }
    async with bench.program(["-m", "api", "--port", str(port)], variables):
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                except OSError:
                    await asyncio.sleep(0.05)
        yield Api(port, token)


async def measure(counts: Sequence[int], events: int) -> list[Latency]:
    """Send `events` events for each number of viewers."""
    async with bench_stack() as bench, api_process(bench) as api:
        await _one(bench, api, 1, 5)  # warm up
        return [await _one(bench, api, count, events) for count in counts]


async def _one(bench: BenchStack, api: Api, count: int, events: int) -> Latency:
    user_id = await bench.harness.founder()
    project_id = await bench.harness.project(user_id)
    async with transaction(bench.harness.sessions) as tx:
        build = await insert_build(tx, BuildRequest(project_id, user_id, "Watched."))
        assert build is not None
    transports, viewers = zip(*[await _watch(api, user_id, build.id) for _ in range(count)], strict=True)
    await _send_event(bench, build.id, 0)
    await _all_have(0, viewers)
    send_times = {}
    for number in range(1, events + 1):
        send_times[number] = await _send_event(bench, build.id, number)
        await asyncio.sleep(_INTERVAL_SECONDS)
    await _all_have(events, viewers)
    for transport in transports:
        transport.close()
    waits = sorted(
        (viewer.arrivals[number] - since) * 1000 for viewer in viewers for number, since in send_times.items()
    )
    return Latency(count, events, waits[len(waits) // 2], waits[int(len(waits) * 0.99)], waits[-1])


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
    async with asyncio.timeout(_TIMEOUT_SECONDS):
        for viewer in viewers:
            while number not in viewer.arrivals:
                if viewer.refusal is not None:
                    raise RuntimeError(f"The API refuses to show the build:\n{viewer.refusal}")
                await asyncio.sleep(0.01)


async def _send_event(bench: BenchStack, build_id: uuid.UUID, number: int) -> float:
    """Append an event; return when its commit was sent (monotonic clock)."""
    async with bench.harness.session() as tx:
        await append_events(tx, build_id, [NarrationEvent(text="I go on.", claim=str(number))])
        commit_at = time.monotonic()  # the end of the block commits
    return commit_at
