"""The HTTP server of the API: uvicorn, which ends the live feeds and the pushes first when it stops."""

import asyncio
import signal
import socket
from contextlib import AsyncExitStack
from functools import partial
from types import FrameType
from typing import NoReturn

import uvicorn
from fastapi import FastAPI
from starlette.types import Scope

from api.gateway.headers import Route
from api.gateway.previews import Previews
from api.gateway.proxy import Lost, Proxy
from api.gateway.tunnel import Tunnel
from api.protocol import Protocol
from clients.cancellation import cancel_and_wait
from db.session import API_POOL, pool_of
from domain.errors import WrongVersion
from observing.health import SignOfLife, health_port
from observing.pool import show_pool
from services.presence import SILENT_SECONDS, Presence

_GRACE_SECONDS = 5
"""Seconds that a stopping server gives its requests to end."""


class Server(uvicorn.Server):
    """Serves the application. Feeds never end by themselves, so a server that waits for its requests ends them."""

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                http=Protocol,
                ws=partial(Tunnel, self._admit),  # type: ignore[arg-type]  # it is only called
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        self._app = app
        self._keeping: asyncio.Task[None] | None = None
        self._closing = AsyncExitStack()
        self.problem: WrongVersion | None = None
        """Why the server has stopped by itself."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, then announce this process."""
        await super().startup(sockets)
        if self.started:
            resources = self._app.state.resources

            async def prepare() -> bytes:
                show_pool(resources.sessions)
                return b""

            sign_of_life = SignOfLife("announced itself", SILENT_SECONDS)
            await self._closing.enter_async_context(
                health_port(resources.settings.metrics_address, live=sign_of_life.problem, prepare=prepare)
            )
            pool = pool_of(resources.settings.database_connections, API_POOL)
            presence = Presence(resources.sessions, "api", 2 * pool)
            self._keeping = asyncio.create_task(presence.keep(self._stop, sign_of_life.note))

    async def _admit(self, scope: Scope) -> tuple[Proxy, Route, Lost]:
        previews: Previews = self._app.state.resources.previews
        scope["app"] = self._app
        return await previews.admit(scope)

    def _stop(self, problem: WrongVersion) -> None:
        self.problem = problem
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the feeds, the pushes and the streams of previews, then stop as uvicorn does."""
        self._app.state.resources.feeds.end()
        self._app.state.resources.account_feeds.end()
        self._app.state.resources.pushes.end()
        self._app.state.resources.previews.end()
        if self._keeping is not None:
            await cancel_and_wait(self._keeping)
        await self._closing.aclose()
        await super().shutdown(sockets)


def exit_cleanly_on_signals() -> None:
    """Exit with code 0 on SIGTERM and SIGINT. uvicorn handles them while it serves, then raises them once more."""
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, _exit)


def _exit(_signum: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)
