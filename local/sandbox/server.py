"""The ASGI application and its process: routes requests to sandboxes, checks keys, and stops all sandboxes on exit."""

import asyncio
import contextlib
import ctypes
import hmac
import logging
import os
import signal
import socket
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from e2b.envd.filesystem.filesystem_connect import FilesystemASGIApplication
from e2b.envd.process.process_connect import ProcessASGIApplication
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from local.sandbox import files
from local.sandbox.confinement import Confinement, Limits, find_node
from local.sandbox.control import NOT_SERVED_BELOW, Control
from local.sandbox.egress import EgressProxy
from local.sandbox.errors import ApiError, not_served
from local.sandbox.filesystem import FilesystemService
from local.sandbox.guest_link import GuestLost
from local.sandbox.oracle import Oracle
from local.sandbox.ports import PortProxy
from local.sandbox.process import ProcessService
from local.sandbox.registry import Registry, TooManyRunning
from local.sandbox.rpc import CODECS, client_left, current_sandbox
from local.sandbox.sandbox import NOT_RUNNING, BootFailed, Sandbox

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
GRACE_SECONDS = 1
MAX_RPC_BYTES = 16 << 20

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Options:
    """How to serve. The kernel chooses a port for 0."""

    root: Path
    api_key: str
    port: int = 0
    proxy_port: int = 0
    egress: EgressProxy | None = None
    ca_bundle: Path | None = None
    """Certificates for programs in sandboxes."""
    limits: Limits = field(default_factory=Limits)
    max_sandboxes: int = 50
    max_running: int | None = None
    """Refuse to start or resume a sandbox while this many run, as E2B's plans do."""
    die_with_parent: bool = False
    oracle: Path | None = None
    """Directory for the log that fault tests compare with."""


class Application:
    """The API port. Requests with a sandbox's id go to that sandbox, all others to the control plane."""

    def __init__(self, registry: Registry, api_key: str, domain: str, reachable: Collection[str]) -> None:
        self._registry = registry
        self._api_key = api_key
        rpc: list[Any] = [
            ProcessASGIApplication(ProcessService(), codecs=CODECS, read_max_bytes=MAX_RPC_BYTES),
            FilesystemASGIApplication(FilesystemService(), codecs=CODECS, read_max_bytes=MAX_RPC_BYTES),
        ]
        self._envd = Starlette(
            routes=[
                Route("/health", _health),
                Route("/files", files.download, methods=["GET"]),
                Route("/files", files.upload, methods=["POST"]),
                *(Mount(each.path, each) for each in rpc),
            ],
            exception_handlers=_HANDLERS,
        )
        control = Control(registry, domain, reachable)
        self._control = Starlette(routes=control.routes(), exception_handlers=_HANDLERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        left: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def receive_and_note() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect" and not left.done():
                left.set_result(None)
            return message

        try:
            client_left.set(left)
            app = await self._route(scope)
            await app(scope, receive_and_note, send_and_note)
        except Exception as error:
            if isinstance(error, ApiError):
                refusal = error
            else:
                log.exception("%s %s failed", scope["method"], scope["path"])
                refusal = ApiError(500, f"the local sandbox server failed: {type(error).__name__}")
            if not started:
                await refusal.response()(scope, receive, send)

    async def _route(self, scope: Scope) -> ASGIApp:
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served")
        request = Request(scope)
        sandbox_id = (
            request.headers.get("e2b-sandbox-id")
            or _id_in(request.headers.get("host", ""))
            or self._signed_for(request)
        )
        if sandbox_id is None:
            if not _same(request.headers.get("x-api-key", ""), self._api_key):
                raise ApiError(401, "Invalid API key")
            return self._control
        current_sandbox.set(await self._sandbox_for(request, sandbox_id))
        return self._envd

    def _signed_for(self, request: Request) -> str | None:
        """The sandbox whose token signed the request. The SDK's signed addresses name it only by their host, which is
        this server's own for every sandbox."""
        if request.url.path != "/files" or "signature" not in request.query_params:
            return None
        for sandbox in self._registry.sandboxes.values():
            if files.is_signed(request, sandbox.record.token):
                return sandbox.id
        raise ApiError(401, "the signature of the address is wrong, or its sandbox is gone")

    async def _sandbox_for(self, request: Request, sandbox_id: str) -> Sandbox:
        sandbox = self._registry.sandboxes.get(sandbox_id)
        health = request.url.path == "/health"
        if sandbox is not None and not health:
            self._check_access(request, sandbox.record.token)
            try:
                await self._registry.resume_for_traffic(sandbox)
            except TooManyRunning as error:
                raise ApiError(429, str(error)) from error
            except (BootFailed, GuestLost) as error:
                log.warning("sandbox %s could not be resumed for a request: %s", sandbox_id, error)
        if sandbox is None or not sandbox.running:
            raise ApiError(502, NOT_RUNNING, sandboxId=sandbox_id)
        return sandbox

    @staticmethod
    def _check_access(request: Request, token: str) -> None:
        if access_token := request.headers.get("x-access-token"):
            if _same(access_token, token):
                return
        elif request.url.path == "/files" and files.is_signed(request, token):
            if files.has_expired(request):
                raise ApiError(401, "the signature of this address has expired")
            return
        raise ApiError(401, "the access token or the signature of the request is missing or wrong")


def _id_in(host: str) -> str | None:
    """The sandbox in `{port}-{sandbox}.{domain}`, by which the SDK addresses envd if it has no sandbox URL."""
    name, dot, _ = host.partition(".")
    port, dash, sandbox_id = name.partition("-")
    return sandbox_id if dot and dash and port.isdigit() else None


def _same(text: str, secret: str) -> bool:
    return hmac.compare_digest(text.encode(), secret.encode())


async def _health(request: Request) -> Response:
    return Response(status_code=204)


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _no_route(request: Request, error: Exception) -> Response:
    what = f"{request.method} {request.url.path}"
    if request.url.path.split("/")[1] in NOT_SERVED_BELOW:
        return not_served(what).response()
    return ApiError(404, f"there is no {what}").response()


_HANDLERS: Any = {ApiError: _refuse, 404: _no_route, 405: _no_route}


class _Uvicorn(uvicorn.Server):
    """Leaves signals to `serve`, which has sandboxes to end first, and tells it when requests are answered."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(options: Options, announce: Callable[[dict[str, Any]], None]) -> None:
    """Serve until SIGTERM or SIGINT. Then no process of a sandbox is left.

    `announce` is called once, as soon as requests are answered, with the variables that point the SDK here. Raises
    `RootInUse`, and OSError if a port is taken.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if options.die_with_parent:
        _die_with_parent(loop, stopping)
    with _listen(options.port) as api_socket, _listen(options.proxy_port) as proxy_socket:
        port, proxy_port = api_socket.getsockname()[1], proxy_socket.getsockname()[1]
        confinement = Confinement(options.root.resolve(), options.limits, ca_bundle=options.ca_bundle, node=find_node())
        oracle = None if options.oracle is None else Oracle(options.oracle)
        registry = Registry(confinement, options.egress, options.max_sandboxes, oracle, options.max_running)
        await registry.open()
        ports = PortProxy(registry)
        await ports.open(proxy_socket)
        application = Application(
            registry, options.api_key, f"localhost:{proxy_port}", options.egress.allow if options.egress else ()
        )
        config = uvicorn.Config(
            application,
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        server = _Uvicorn(config)
        serving = asyncio.create_task(server.serve(sockets=[api_socket]))
        try:
            await server.ready.wait()
            url = f"http://{LOOPBACK}:{port}"
            variables = {"E2B_API_KEY": options.api_key, "E2B_API_URL": url, "E2B_SANDBOX_URL": url}
            announce(variables | {"proxy_port": proxy_port})
            await stopping.wait()
        finally:
            await registry.close()  # first, so that open streams end by themselves
            await ports.close()
            if options.egress is not None:
                await options.egress.close()
            server.should_exit = True
            await serving


def _listen(port: int) -> socket.socket:
    # Name the protocol: asyncio switches Nagle's algorithm off only if it sees TCP, and with it a request takes 40 ms
    # longer.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, port))
        listener.listen(512)
    except BaseException:
        listener.close()
        raise
    return listener


def _die_with_parent(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    """Stop when the parent process has died. The kernel also sends the signal if only the parent's thread that started
    this process ends, so look first who the parent is."""
    parent = os.getppid()

    def check_parent() -> None:
        if os.getppid() != parent:
            stopping.set()

    loop.add_signal_handler(signal.SIGUSR1, check_parent)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1, 0, 0, 0)
    check_parent()
