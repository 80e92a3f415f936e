"""Serves `/livez`, `/readyz` and `/metrics` of a process at an address of its own, without authentication.

Anyone who reaches the address may read it. It shows counts and times, and nothing of a user. METRICS_ADDRESS sets it.
"""

import asyncio
import ipaddress
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, nullcontext

import uvicorn
from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from domain.errors import Misconfigured
from observing.metrics import REGISTRY

Problem = Callable[[], str | None]
"""What keeps the process from being live or ready; None if nothing does."""

Prepare = Callable[[], Awaitable[bytes]]
"""Brings the gauges up to date, and returns further metrics in Prometheus's text format."""

_GRACE_SECONDS = 1


class SignOfLife:
    """When a task was last seen to go round that never ends."""

    def __init__(self, what: str, limit_seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            what: the task does, as a sentence says it.
            limit_seconds: the task hangs or has ended if it was not seen for longer.
            now: seconds of a clock that never goes back.
        """
        self._what = what
        self._limit_seconds = limit_seconds
        self._now = now
        self._seen_at = now()

    def note(self) -> None:
        """The task goes round."""
        self._seen_at = self._now()

    def problem(self) -> str | None:
        """What keeps the process from being live."""
        silent = self._now() - self._seen_at
        if silent <= self._limit_seconds:
            return None
        return f"The process has not {self._what} for {silent:.0f} s, so a task hangs or has ended. Restart it."


def _nothing() -> str | None:
    return None


async def _no_more() -> bytes:
    return b""


@asynccontextmanager
async def health_port(
    address: str | None, *, live: Problem = _nothing, ready: Problem = _nothing, prepare: Prepare = _no_more
) -> AsyncIterator[None]:
    """Serve during the block.

    Args:
        address: `host:port`; None serves nothing.
        live: a supervisor restarts a process that is not live.
        ready: an answer of 503 if the process can't do its work.
        prepare: called at each request for metrics.

    Raises:
        Misconfigured: the address can't be used.
    """
    if address is None:
        yield
        return
    server = _Server(
        uvicorn.Config(
            _application(live, ready, prepare),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
    )
    serving = asyncio.create_task(server.serve([_listen(address)]))
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.wait({serving})


class _Server(uvicorn.Server):
    """The process's own handlers of signals stay."""

    capture_signals = nullcontext  # type: ignore[assignment]


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        family = socket.AF_INET
    try:
        return socket.create_server((host, int(port)), family=family)
    except OSError as error:
        raise Misconfigured(
            f"METRICS_ADDRESS is {address}, where this program can't listen: {error.strerror}. Choose another port."
        ) from error


class _Shown(Collector):
    """Everything that is shown: what this program counts, and further metrics in Prometheus's text format.

    Prometheus asks for OpenMetrics, the format that has exemplars, so the others are read and written again.
    """

    def __init__(self, more: bytes) -> None:
        self._more = more

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        yield from REGISTRY.collect()
        yield from text_string_to_metric_families(self._more.decode())


def _application(live: Problem, ready: Problem, prepare: Prepare) -> Starlette:
    async def metrics(request: Request) -> Response:
        more = await prepare()
        encode, media_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(_Shown(more)), media_type=media_type)

    routes = [
        Route("/livez", lambda _: _answer(live())),
        Route("/readyz", lambda _: _answer(ready())),
        Route("/metrics", metrics),
    ]
    return Starlette(routes=routes)


def _answer(problem: str | None) -> Response:
    return PlainTextResponse("ok\n") if problem is None else PlainTextResponse(f"{problem}\n", status_code=503)
