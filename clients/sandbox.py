"""Sandboxes, through the official `e2b` SDK: the only module that imports it.

Locally the same SDK talks to `local/sandbox`. Every request has our own deadline, because the SDK's requests can hang
(e2b #1128). The SDK repeats none of them: Temporal owns retries.
"""

import asyncio
import contextlib
import errno
import hashlib
import inspect
import json
import os
import shlex
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, TypedDict, TypeVar, cast
from weakref import WeakValueDictionary

import e2b
import httpx2
from e2b.api import max_connections
from e2b.exceptions import SandboxNotRunningException, ServiceBusyException

from clients import sandbox_runner
from clients.cancellation import cancel_and_wait, preserve_cancel, wait_for_answer
from clients.loopback import with_address
from clients.runner_session import RunnerSession, SessionEnded
from clients.sandbox_runner import JOURNAL, WORKSPACE
from domain.errors import (
    CofounderError,
    InvalidInput,
    Misconfigured,
    NeedsPerson,
    SandboxFull,
    SandboxGone,
    SandboxOverloaded,
    SandboxRefused,
    SandboxUnavailable,
)
from domain.permits import reason_to_wait
from domain.traffic import Upstream
from settings import Settings, secret_text

APP = "cofounder"
"""`app` in the metadata of every sandbox that Cofounder creates."""

REQUEST_SECONDS = 30.0
"""Deadline of a small request in seconds: control plane, start of a command, a file of a few megabytes."""

CHECK_SECONDS = 10.0
"""Deadline in seconds of the check at startup that the service answers."""

TRANSFER_SECONDS = 1800.0
"""Deadline of a streamed upload in seconds."""

ATTACH_SECONDS = 20.0
"""Seconds that one request waits for a call's outcome before the next one; short enough for any proxy on the way."""

INLINE_BYTES = 100_000
"""Send a call's input with the command that starts it up to this size; Linux allows 128 KiB per variable."""

RUNNER_SOURCE = inspect.getsource(sandbox_runner)
RUNNER_MODULE = f"runner_{hashlib.sha256(RUNNER_SOURCE.encode()).hexdigest()[:12]}"
"""The runner's module name inside the sandbox. It includes a hash, so a runner of another version has another name."""

SESSION_ATTEMPTS = 3
"""Start the runner for each request once this many sessions in a row have failed."""

UNUSED_SECONDS = 900.0
"""Forget a sandbox that this process has not used for this long: another worker may have ended it without a word."""

SPARED_SECONDS = 60.0
"""A session that was used less than this long ago does not end for another. If more sandboxes are used in turn than
there is room for, some keep theirs: otherwise each would end that of the one that is next."""

STREAMS_PER_CONNECTION = 100
"""Requests at once on one connection to E2B's service, which speaks HTTP/2. Over plain HTTP it is one."""

RUNNER_ATTEMPTS = 5
"""Start the runner this many times if a signal ends it: a command may kill each process of a name or of its user."""

T = TypeVar("T")


class Role(StrEnum):
    """What a sandbox is for. A build has at most one of each."""

    WORKSPACE = "workspace"
    GATE = "gate"
    PREVIEW = "preview"
    PUSH = "push"
    """Its snapshot's history is bundled there for a git server. It belongs to a request, not to the build's work."""
    DOCTOR = "doctor"
    """It says what sandboxes lack, and belongs to no build."""


TOOL_ENVIRONMENT = {
    # No one answers a question of a tool.
    **{"COREPACK_ENABLE_DOWNLOAD_PROMPT": "0", "DEBIAN_FRONTEND": "noninteractive", "GIT_TERMINAL_PROMPT": "0"},
    **{"PIP_NO_INPUT": "1", "npm_config_yes": "true"},
    # Telemetry asks hosts that no set has, and some of it asks for consent. News of versions hides what failed.
    **{
        "ASTRO_TELEMETRY_DISABLED": "1",
        "CHECKPOINT_DISABLE": "1",
        "DO_NOT_TRACK": "1",
        "GATSBY_TELEMETRY_DISABLED": "1",
    },
    **{"NEXT_TELEMETRY_DISABLED": "1", "NG_CLI_ANALYTICS": "false", "NUXT_TELEMETRY_DISABLED": "1"},
    **{"PIP_DISABLE_PIP_VERSION_CHECK": "1", "STORYBOOK_DISABLE_TELEMETRY": "1", "TURBO_TELEMETRY_DISABLED": "1"},
    **{"npm_config_fund": "false", "npm_config_update_notifier": "false"},
    # A program that is ended has printed what it had to say.
    "PYTHONUNBUFFERED": "1",
}
"""Variables of every program in a sandbox. `CI` is not among them: with it, some package managers refuse to change a
lock file, and some builds take warnings for errors."""


@dataclass(frozen=True)
class SandboxConfig:
    """How to reach the sandbox service, and how to create sandboxes.

    `api_url` and `sandbox_url` are None for E2B's cloud. `egress_hosts` is None for the open internet, empty for no
    network.
    """

    api_key: str
    api_url: str | None = None
    sandbox_url: str | None = None
    template: str = "base"
    ttl_seconds: int = 1800
    egress_hosts: list[str] | None = None


def sandbox_config(settings: Settings) -> SandboxConfig:
    """Return the configuration of the sandbox service.

    Raises:
        Misconfigured: the key is missing, or a setting is only for sandboxes on this machine.
    """
    key = secret_text(settings.e2b_api_key)
    if key is None:
        raise Misconfigured(
            "There is no E2B_API_KEY. Set it to your E2B key, or run `cofounder local sandbox` and set what it prints."
        )
    settings.check_sandbox_service()
    return SandboxConfig(
        api_key=key,
        api_url=settings.e2b_api_url,
        sandbox_url=settings.e2b_sandbox_url,
        template=settings.e2b_template,
        ttl_seconds=settings.sandbox_ttl_seconds,
        egress_hosts=settings.reachable_hosts,
    )


@dataclass(frozen=True)
class ListedSandbox:
    """A sandbox as the control plane lists it; `state` is running or paused."""

    id: str
    build_id: str
    role: str
    state: str
    started_at: datetime


@dataclass(frozen=True)
class CommandOutput:
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class HttpAnswer:
    """What a server in the sandbox answered; the body is cut at the requested limit."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True)
class RunnerAnswer:
    """The result of a read-only tool; the text is for the agent."""

    text: str
    is_error: bool
    image: str | None = None
    """The path in the sandbox of the image that is the result."""


@dataclass(frozen=True)
class CallOutcome:
    """What became of a journaled call.

    `done`: it ran; the other fields say how. `lost`: its process vanished without an outcome, or the runner failed;
    `text` says what is known. `not_run`: the sandbox has been restarted since, and the call was not started.
    """

    state: Literal["done", "lost", "not_run"]
    is_error: bool = False
    exit_code: int | None = None
    timed_out: bool = False
    ended: bool = False
    """`end_call` ended its processes."""
    text: str = ""
    """The tool's text, or the beginning of the command's output."""
    tail: str = ""
    """The end of the output, if the middle was cut."""
    output_bytes: int = 0
    output_path: str = ""
    """The file in the sandbox with all of the output."""
    memory_peak: int | None = None
    """Processes were ended for want of memory: the most bytes that one process of the command has used."""
    memory_limit: int = 0
    """With `memory_peak`: the bytes that the sandbox has; 0 if that is unknown."""
    seconds: float = 0.0
    """How long it ran."""
    refused_hosts: object = None
    """What the sandbox tells of hosts that it refused meanwhile; for `domain.egress.refused_hosts`."""
    commit: str | None = None
    """The workspace's new HEAD, in full, if the call made a commit."""
    subject: str | None = None


class _Connection(TypedDict, total=False):
    api_key: str
    api_url: str
    sandbox_url: str
    debug: bool
    retries: int
    request_timeout: float


class _NotRunning(Exception):
    """The data plane does not know the sandbox: it is paused, killed or expired. Only the control plane knows which."""


class Sandboxes:
    """Creates, finds, pauses and kills sandboxes. One per process; close it when done."""

    def __init__(self, config: SandboxConfig) -> None:
        self.config = config
        self._connection = _Connection(
            api_key=config.api_key, debug=False, retries=0, request_timeout=REQUEST_SECONDS - 1
        )
        if config.api_url:
            self._connection["api_url"] = config.api_url
        if config.sandbox_url:
            self._connection["sandbox_url"] = config.sandbox_url
        self._open: OrderedDict[str, Sandbox] = OrderedDict()
        """The sandboxes that this process is connected with, the last used one last. Each takes about 0.1 MB."""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._with_session: OrderedDict[Sandbox, float] = OrderedDict()
        """The sandboxes that have a session with their runner or start one, each with the time of its last use on the
        monotonic clock; the last used one last."""
        self._http: httpx2.AsyncClient | None = None

    async def close(self) -> None:
        """Close the connections. Sandboxes keep running."""
        for sandbox_id in list(self._open):
            await self._forget(sandbox_id)
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def check(self) -> None:
        """Check that the service answers and accepts the key.

        Raises:
            Misconfigured: it is another service; says what to do.
            SandboxUnavailable: it does not answer.
            NeedsPerson: it does not accept the key.
        """
        try:
            await self.probe()
        except SandboxUnavailable as error:
            if not isinstance(error.__cause__, e2b.RateLimitException | ServiceBusyException):
                raise

    async def probe(self) -> None:
        """Ask the service for the list of sandboxes.

        Raises:
            SandboxUnavailable: it does not answer.
            NeedsPerson: it does not accept the key.
        """
        pages = e2b.AsyncSandbox.list(query=e2b.SandboxQuery(metadata={"app": APP}), limit=1, **self._connection)
        await self.ask("list sandboxes", pages.next_items(), CHECK_SECONDS)

    async def find(self, build_id: str, role: Role) -> list[str]:
        """Ids of a build's sandboxes in a role, newest first, running or paused."""
        return [sandbox.id for sandbox in await self.list_of(build_id, role)]

    async def list_of(self, build_id: str, role: Role) -> list[ListedSandbox]:
        """A build's sandboxes in a role, newest first, running or paused."""
        return await self._list({"app": APP, "build": build_id, "role": role.value})

    async def list_all(self) -> list[ListedSandbox]:
        """Every sandbox that Cofounder created with this key, newest first."""
        return await self._list({"app": APP})

    async def create(self, build_id: str, role: Role, *, offline: bool = False) -> "Sandbox":
        """Create a sandbox with an empty workspace. When its time to live runs out, it is paused, not killed.

        Servers in it answer only requests with its traffic token. If the answer gets lost, the sandbox still exists;
        call `find` before creating another. With `offline`, it reaches no host at all.

        Raises:
            SandboxRefused: as many run as the service allows.
            SandboxUnavailable: no answer, or not a useful one.
            NeedsPerson: the service would let anyone reach the servers in it. The sandbox is killed.
        """
        hosts = [] if offline else self.config.egress_hosts
        network: e2b.SandboxNetworkOpts = {"allow_public_traffic": False}
        if hosts:
            network |= {"allow_out": hosts, "deny_out": ["0.0.0.0/0"]}
        request = self.ask(
            "create a sandbox",
            e2b.AsyncSandbox.create(
                template=self.config.template,
                timeout=self.config.ttl_seconds,
                metadata={"app": APP, "build": build_id, "role": role.value},
                envs=sandbox_runner.GIT_ENVIRONMENT | TOOL_ENVIRONMENT,
                lifecycle={"on_timeout": "pause", "auto_resume": False},
                allow_internet_access=None if hosts is None else bool(hosts),
                network=network,
                **self._connection,
            ),
            2 * REQUEST_SECONDS,
        )
        # Wait for the answer even if this is cancelled: otherwise the service could make the sandbox after the cleanup
        # has listed sandboxes, and nothing would end it.
        with _refused_at_quota():
            sdk = await wait_for_answer(request)
        if not sdk.traffic_access_token:
            await self.kill(sdk.sandbox_id)
            raise NeedsPerson(
                f"{self._service} gave a new sandbox no traffic token, so anyone could reach the product in it. Use a "
                "service that serves allow_public_traffic=False (see `cofounder doctor --paid`), then wake the build.",
                "operator",
            )
        sandbox = Sandbox(self, sdk)
        self._open[sdk.sandbox_id] = sandbox
        await asyncio.gather(sandbox.install_runner(), sandbox.make_directory(WORKSPACE))
        return sandbox

    async def connect(self, sandbox_id: str) -> "Sandbox":
        """Connect to the sandbox, resume it if it is paused, and extend its time to live.

        Asks the control plane at most once a minute per sandbox.

        Raises:
            SandboxGone: the sandbox does not exist any more.
            SandboxRefused: it was paused, and as many run as the service allows.
            SandboxUnavailable: no answer, or not a useful one.
        """
        async with self._locks.setdefault(sandbox_id, asyncio.Lock()):
            connected = self._open.get(sandbox_id)
            if connected is not None and time.monotonic() - connected.extended_at < self.extend_every:
                return connected
            return await self._connect(sandbox_id)

    async def pause(self, sandbox_id: str) -> None:
        """Pause the sandbox. Does nothing if it is paused or gone."""
        await self._forget(sandbox_id)
        with contextlib.suppress(SandboxGone):
            await self.ask(
                f"pause sandbox {sandbox_id}",
                e2b.AsyncSandbox.pause(sandbox_id, **self._connection),
                2 * REQUEST_SECONDS,
            )

    async def kill(self, sandbox_id: str) -> None:
        """Kill the sandbox. Does nothing if it is gone."""
        await self._forget(sandbox_id)
        with contextlib.suppress(SandboxGone):
            await self.ask(f"kill sandbox {sandbox_id}", e2b.AsyncSandbox.kill(sandbox_id, **self._connection))

    async def ask(self, what: str, request: Awaitable[T], seconds: float = REQUEST_SECONDS) -> T:
        """Make one request of the SDK, within a deadline, and turn its errors into ours."""
        with preserve_cancel():
            try:
                async with asyncio.timeout(seconds):
                    return await request
            except TimeoutError as error:
                raise SandboxUnavailable(f"{self._service} did not {what} within {seconds:.0f} s.") from error
            except Exception as error:
                raise self._translate(what, error) from error

    async def resume(self, sandbox_id: str) -> "Sandbox":
        """Connect again, even after a recent connection. For a sandbox that the data plane says is not running."""
        async with self._locks.setdefault(sandbox_id, asyncio.Lock()):
            return await self._connect(sandbox_id)

    async def make_room_for_session(self, sandbox: "Sandbox") -> bool:
        """Let the sandbox have a session with its runner; the idle one that was used least recently may end for it.

        A session holds one of the streams that the SDK can have open at once; half of them are for other requests.

        Returns:
            False if the sandbox may start no session: there is no room, and the others were used within the last
            `SPARED_SECONDS`.
        """
        most = max(1, max_connections * (1 if self.is_local else STREAMS_PER_CONNECTION) // 2)
        self._with_session.pop(sandbox, None)
        while len(self._with_session) >= most:
            long_ago = time.monotonic() - SPARED_SECONDS
            unused = (each for each, used_at in self._with_session.items() if used_at <= long_ago)
            idle = next((each for each in unused if each.is_session_idle), None)
            if idle is None:
                return False
            self._with_session.pop(idle)
            await idle.end_session(ends_runner=True)
        self._with_session[sandbox] = time.monotonic()
        return True

    def forget_session(self, sandbox: "Sandbox") -> None:
        """Note that the sandbox has no session any more."""
        self._with_session.pop(sandbox, None)

    def http(self) -> httpx2.AsyncClient:
        """The client for servers in sandboxes. It reaches local ones without this machine's proxy settings."""
        if self._http is None:
            self._http = httpx2.AsyncClient(trust_env=not self.is_local, follow_redirects=False)
        return self._http

    @property
    def is_local(self) -> bool:
        """Whether the data plane speaks plain HTTP, as the local server does."""
        return (self.config.sandbox_url or "").startswith("http://")

    @property
    def _service(self) -> str:
        return f"The sandbox service at {self.config.api_url or 'E2B'}"

    @property
    def extend_every(self) -> float:
        """Seconds after which a used sandbox's time to live is extended again."""
        return min(60.0, self.config.ttl_seconds / 3)

    async def _connect(self, sandbox_id: str) -> "Sandbox":
        requested_at = time.monotonic()
        try:
            with _refused_at_quota():
                sdk = await self.ask(
                    f"connect to sandbox {sandbox_id}",
                    e2b.AsyncSandbox.connect(sandbox_id, timeout=self.config.ttl_seconds, **self._connection),
                    2 * REQUEST_SECONDS,
                )
        except SandboxGone:
            await self._forget(sandbox_id)
            raise
        sandbox = self._open.get(sandbox_id)
        if sandbox is None:
            sandbox = self._open[sandbox_id] = Sandbox(self, sdk)
        else:
            sandbox.use_connection(sdk, requested_at)
        self._open.move_to_end(sandbox_id)
        await self._forget_unused()
        return sandbox

    async def _forget_unused(self) -> None:
        """Forget the sandbox that was used least recently, if that is long ago. No more: someone waits for another."""
        sandbox_id, sandbox = next(iter(self._open.items()))
        if time.monotonic() - sandbox.extended_at > UNUSED_SECONDS and sandbox.is_session_idle:
            await self._forget(sandbox_id)

    async def _forget(self, sandbox_id: str) -> None:
        sandbox = self._open.pop(sandbox_id, None)
        if sandbox is not None:
            await sandbox.end_session()

    async def _list(self, metadata: dict[str, str]) -> list[ListedSandbox]:
        pages = e2b.AsyncSandbox.list(query=e2b.SandboxQuery(metadata=metadata), order="desc", **self._connection)
        infos: list[e2b.SandboxInfo] = []
        while pages.has_next:
            infos += await self.ask("list sandboxes", pages.next_items())
        return [
            ListedSandbox(
                id=info.sandbox_id,
                build_id=info.metadata.get("build", ""),
                role=info.metadata.get("role", ""),
                state=info.state.value,
                started_at=info.started_at,
            )
            for info in infos
            if metadata.items() <= info.metadata.items()
        ]

    def _translate(self, what: str, error: Exception) -> Exception:
        """Turn an error of the SDK into one of ours. An error that is not known to be permanent can be retried."""
        match error:
            case SandboxNotRunningException():
                return _NotRunning(str(error))
            case e2b.FileNotFoundException():
                return FileNotFoundError(f"Cannot {what}: {error}")
            case e2b.SandboxNotFoundException():
                return SandboxGone(f"Cannot {what}: the sandbox does not exist any more.")
            case e2b.AuthenticationException():
                return NeedsPerson(
                    f"{self._service} does not accept the key. Check E2B_API_KEY, then wake the build. ({error})",
                    "operator",
                )
            case e2b.NotEnoughSpaceException():
                return SandboxFull(
                    f"Cannot {what}: the sandbox's disk is full. Choose a larger template (E2B_TEMPLATE)."
                )
            case e2b.InvalidArgumentException():
                return InvalidInput(f"Cannot {what}: {error}")
            case e2b.SandboxException(status_code=int(status)) if status in (400, 404):
                return Misconfigured(f"{self._service} refuses to {what}: {error} Check E2B_TEMPLATE and E2B_API_URL.")
            case e2b.SandboxException(status_code=402 | 403):
                return NeedsPerson(f"{self._service} does not let us {what}: {error}", "operator")
            case e2b.RateLimitException() | ServiceBusyException():
                return SandboxUnavailable(f"{self._service} is busy and did not {what}: {error}")
            case e2b.SandboxException() if _is_overloaded(str(error)):
                return SandboxOverloaded(f"Cannot {what}: so many processes run there that none can be started.")
            case json.JSONDecodeError():
                return SandboxUnavailable(f"{self._service} failed to {what}: its answer is not JSON.")
            case _:
                return SandboxUnavailable(
                    f"{self._service} failed to {what}: {str(error) or type(error).__name__}. "
                    "Check that it runs and that E2B_API_URL and E2B_SANDBOX_URL point to it."
                )


@contextlib.contextmanager
def _refused_at_quota() -> Iterator[None]:
    """Tell a sandbox that the service has no room for from a service that fails. E2B answers 429 at the quota."""
    try:
        yield
    except SandboxUnavailable as error:
        if isinstance(error.__cause__, e2b.RateLimitException):
            raise SandboxRefused(reason_to_wait(0, refused=True)) from error.__cause__
        raise


class Sandbox:
    """One sandbox. It runs when `Sandboxes` returns it; if it was paused since, the next request resumes it.

    All methods raise SandboxUnavailable if the service fails, and SandboxGone if the sandbox does not exist any more.
    """

    def __init__(self, owner: Sandboxes, sdk: e2b.AsyncSandbox) -> None:
        self._owner = owner
        self._sdk = sdk
        self.id: str = sdk.sandbox_id
        self.extended_at = time.monotonic()
        self._session: _Session | None = None
        self._session_starting = asyncio.Lock()
        self._session_failures = 0

    def use_connection(self, sdk: e2b.AsyncSandbox, at: float) -> None:
        """Use this connection from now on. `at` is when the time to live was extended (monotonic clock)."""
        self._sdk = sdk
        self.extended_at = at

    async def boot(self) -> str:
        """An id of the sandbox's running processes: the same after a resume with memory, another after a restart."""
        output = await self._run(
            "cat /proc/sys/kernel/random/boot_id /proc/1/stat", REQUEST_SECONDS, cwd="/", repeatable=True
        )
        boot_id, _, stat = output.stdout.partition("\n")
        if output.exit_code != 0 or not stat:
            raise SandboxUnavailable(f"The boot of sandbox {self.id} could not be read: {output.stderr.strip()}")
        return sandbox_runner.boot_of(boot_id, stat)

    async def run(
        self, command: str, *, timeout_seconds: float, cwd: str = WORKSPACE, env: Mapping[str, str] | None = None
    ) -> CommandOutput:
        """Run a quick command with bash and wait for it. Use `call` for a command that must not run twice.

        A background child that keeps the output open delays this. After `timeout_seconds`, bash is killed but not its
        children, and SandboxUnavailable is raised.
        """
        return await self._run(command, timeout_seconds, cwd=cwd, env=env)

    async def write(self, path: str, data: str | bytes | AsyncIterable[bytes]) -> None:
        """Write a file, and the folders on the way. A path that is not absolute is relative to /home/user."""
        what = f"write {path} in sandbox {self.id}"
        streamed = not isinstance(data, str | bytes)
        await self._ask(
            what,
            lambda: self._sdk.files.write(path, data, use_octet_stream=True),
            TRANSFER_SECONDS if streamed else 2 * REQUEST_SECONDS,
            repeatable=not streamed,
        )

    async def exists(self, path: str) -> bool:
        """Whether there is a file or a directory."""
        what = f"look for {path} in sandbox {self.id}"
        return bool(await self._ask(what, lambda: self._sdk.files.exists(path), repeatable=True))

    async def make_directory(self, path: str) -> None:
        """Make a directory, and the ones on the way, unless it is there."""
        what = f"make {path} in sandbox {self.id}"
        await self._ask(what, lambda: self._sdk.files.make_dir(path), repeatable=True)

    async def read(self, path: str) -> bytes:
        """Read a file.

        Raises:
            FileNotFoundError: no such file.
            InvalidInput: not a regular file.
        """
        what = f"read {path} in sandbox {self.id}"
        content = await self._ask(
            what, lambda: self._sdk.files.read(path, format="bytes"), 2 * REQUEST_SECONDS, repeatable=True
        )
        return bytes(content)

    async def stream(self, path: str) -> AsyncIterator[bytes]:
        """Read a file in pieces. A stream that stalls for a minute fails. Raises the same errors as `read`."""
        what = f"read {path} in sandbox {self.id}"
        reader = await self._ask(what, lambda: self._sdk.files.read(path, format="stream"), repeatable=True)
        pieces = aiter(reader)
        try:
            while (piece := await self._ask(what, lambda: anext(pieces, None), 2 * REQUEST_SECONDS)) is not None:
                yield piece
                await self._owner.connect(self.id)
        finally:
            await _close_quietly(reader.aclose())

    def upstream(self, port: int) -> Upstream:
        """Where the server on a port of the sandbox is reached, and with which token."""
        url = f"{'http' if self._owner.is_local else 'https'}://{self._sdk.get_host(port)}"
        return Upstream(url, self._sdk.traffic_access_token)

    async def http_get(
        self, port: int, path: str, timeout_seconds: float, max_bytes: int = 2_000_000, *, authorized: bool = True
    ) -> HttpAnswer | None:
        """Ask the server on a port. Returns None if no server answers in time.

        Sends the token of a private sandbox if `authorized`.
        """
        upstream = self.upstream(port)
        url, headers = with_address(upstream.at(path))
        if authorized:
            headers = headers | upstream.headers(upstream.url)
        body = bytearray()
        try:
            async with (
                asyncio.timeout(timeout_seconds),
                self._owner.http().stream("GET", url, headers=headers, timeout=timeout_seconds) as answer,
            ):
                if answer.status_code == 502 and await self._not_served(answer):
                    return None
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) >= max_bytes:
                        break
                return HttpAnswer(answer.status_code, answer.headers.get("content-type", ""), bytes(body[:max_bytes]))
        except (httpx2.HTTPError, TimeoutError, OSError):
            return None

    async def install_runner(self) -> None:
        """Upload the runner to the sandbox. `create` does this; `call` and `query` do it if the runner is missing."""
        await self.write(f"{JOURNAL}/{RUNNER_MODULE}.py", RUNNER_SOURCE)

    async def call(
        self,
        call_id: str,
        tool: str,
        input: dict[str, Any],
        *,
        timeout_seconds: float,
        on_wait: Callable[[], None] | None = None,
        boot: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CallOutcome:
        """Run a mutating tool once, as a detached process inside the sandbox, and wait for its outcome.

        Another request with the same `call_id`, from this or another process, attaches to that call; it never runs
        twice. If this is cancelled, the call keeps running.

        Args:
            call_id: `[A-Za-z0-9_-]{1,128}`.
            tool: bash, write_file or edit_file.
            input: the tool's input, as its schema has it.
            timeout_seconds: seconds after which the call's whole process tree is ended.
            on_wait: called every two seconds while waiting, for heartbeats for example.
            boot: start the call only in this boot of the sandbox; in another one the outcome is `not_run`.
            env: added to a command's environment if this request starts it.
        """
        _check_call_id(call_id)
        envelope = json.dumps({"tool": tool, "input": input, "timeout": timeout_seconds})
        if len(envelope) > INLINE_BYTES:
            await self.write(f"{JOURNAL}/inputs/{call_id}.json", envelope)
            envelope = ""
        words = ["start", call_id, boot or "-", str(ATTACH_SECONDS)]
        deadline = time.monotonic() + timeout_seconds + 120
        first = True
        while True:
            request = self._runner(words, envelope, ATTACH_SECONDS + REQUEST_SECONDS, env)
            answer = await (_await_with_calls(request, on_wait) if on_wait else request)
            if answer["state"] == "not_run" and not first:
                return CallOutcome("lost", True, text="the sandbox was restarted while the call was started")
            if answer["state"] != "running":
                return CallOutcome(**answer)
            if time.monotonic() > deadline:
                raise SandboxUnavailable(f"Call {call_id} in sandbox {self.id} has no outcome after its time limit.")
            first = False
            await self._owner.connect(self.id)

    async def end_call(self, call_id: str) -> None:
        """End the process tree of a call; if it has not started yet, it never will. Idempotent."""
        _check_call_id(call_id)
        await self._runner(["end", call_id], "", REQUEST_SECONDS)

    async def query(self, tool: str, input: dict[str, Any]) -> RunnerAnswer:
        """Run a read-only tool: read_file, glob or grep."""
        answer = await self._runner(["query"], json.dumps({"tool": tool, "input": input}), REQUEST_SECONDS)
        return RunnerAnswer(str(answer["text"]), bool(answer["is_error"]), answer.get("image"))

    async def read_up_to(self, path: str, max_bytes: int) -> bytes | None:
        """Read a file; None if it has more bytes. Raises the same errors as `read`."""
        data = bytearray()
        async with contextlib.aclosing(cast("AsyncGenerator[bytes, None]", self.stream(path))) as pieces:
            async for piece in pieces:
                data += piece
                if len(data) > max_bytes:
                    return None
        return bytes(data)

    @property
    def is_session_idle(self) -> bool:
        """Whether no request waits for its session, or for an answer in it."""
        is_asked = self._session is not None and self._session.requests.is_asked
        return not is_asked and not self._session_starting.locked()

    async def end_session(self, *, ends_runner: bool = False) -> None:
        """End the session with the runner, if there is one. Its process in the sandbox ends by itself after a while.

        `ends_runner`: it ends at once.
        """
        session, self._session = self._session, None
        self._owner.forget_session(self)
        if session is not None:
            await session.close(ends_runner=ends_runner)

    async def _runner(
        self, words: list[str], envelope: str, seconds: float, env: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        answer = await self._ask_session(words, envelope, seconds, env)
        if answer is None:
            answer = await self._start_runner(words, envelope, seconds, env)
        if answer.pop("full", False):
            raise SandboxFull(_FULL)
        return answer

    async def _ask_session(
        self, words: list[str], envelope: str, seconds: float, env: Mapping[str, str] | None
    ) -> dict[str, Any] | None:
        """Ask a runner that keeps running. None if none answers: then one has to be started for the request alone."""
        if self._session_failures >= SESSION_ATTEMPTS:
            return None
        session = None
        try:
            async with asyncio.timeout(seconds + 10):
                session = await self._open_session()
                if session is None:
                    return None
                answer = await session.requests.ask(session.send, words, envelope, env or {})
        except (CofounderError, SessionEnded, TimeoutError, _NotRunning, FileNotFoundError):
            self._session_failures += 1
            if session is not None and session is self._session:
                await self.end_session()
            return None
        self._session_failures = 0
        return answer

    async def _open_session(self) -> "_Session | None":
        """The session, or None if there may be no further one."""
        async with self._session_starting:
            if not await self._owner.make_room_for_session(self):
                return None
            session = self._session
            if session is None or session.requests.has_ended:
                session = self._session = await _Session.start(self._owner, self._sdk, _runner_command(["serve"]))
            return session

    async def _start_runner(
        self, words: list[str], envelope: str, seconds: float, env: Mapping[str, str] | None
    ) -> dict[str, Any]:
        command = _runner_command(words)
        for attempt in range(RUNNER_ATTEMPTS):
            output = await self._run(
                command, seconds, cwd="/", env={**(env or {}), sandbox_runner.INPUT_VARIABLE: envelope}, repeatable=True
            )
            if attempt == 0 and output.exit_code == 1 and f"'{RUNNER_MODULE}'" in output.stderr:
                await self.install_runner()
            elif not _was_killed(output):
                break
        if output.exit_code == 127:
            raise Misconfigured("The sandbox has no python3. Choose a template that has it (E2B_TEMPLATE).")
        # Only the last line counts: a login profile in the sandbox may print before it.
        line = output.stdout.strip().rpartition("\n")[2]
        with contextlib.suppress(ValueError):
            answer = json.loads(line)
            if isinstance(answer, dict):
                return answer
        if _is_full(output.stderr):
            raise SandboxFull(_FULL)
        if _is_overloaded(output.stderr):
            raise SandboxOverloaded(f"So many processes run in sandbox {self.id} that none can be started.")
        problem = (
            f"the sandbox's runner failed with exit code {output.exit_code}: {(output.stderr or output.stdout)[-500:]}"
        )
        return {"state": "lost", "is_error": True, "text": problem}

    async def _run(
        self,
        command: str,
        seconds: float,
        *,
        cwd: str = WORKSPACE,
        env: Mapping[str, str] | None = None,
        repeatable: bool = False,
    ) -> CommandOutput:
        async def run() -> CommandOutput:
            handle = await self._sdk.commands.run(
                command,
                background=True,
                envs=None if env is None else dict(env),
                cwd=cwd,
                timeout=seconds,
                request_timeout=REQUEST_SECONDS,
            )
            try:
                result = await handle.wait()
            except e2b.CommandExitException as failed:
                return CommandOutput(failed.exit_code, failed.stdout, failed.stderr)
            finally:
                if handle.exit_code is None:
                    await _close_quietly(handle.disconnect())
            return CommandOutput(result.exit_code, result.stdout, result.stderr)

        return await self._ask(f"run a command in sandbox {self.id}", run, seconds + 10, repeatable=repeatable)

    async def _ask(
        self,
        what: str,
        request: Callable[[], Awaitable[T]],
        seconds: float = REQUEST_SECONDS,
        *,
        repeatable: bool = False,
    ) -> T:
        async with self._keep_alive(seconds):
            try:
                return await self._owner.ask(what, request(), seconds)
            except _NotRunning:
                await self._owner.resume(self.id)
                if not repeatable:
                    raise SandboxUnavailable(f"Could not {what}: it was paused. It runs again now.") from None
            try:
                return await self._owner.ask(what, request(), seconds)
            except _NotRunning as error:
                raise SandboxUnavailable(f"Could not {what}: it does not stay up. ({error})") from error

    @contextlib.asynccontextmanager
    async def _keep_alive(self, seconds: float) -> AsyncIterator[None]:
        """Keep extending the time to live during the block, which may take `seconds`."""
        if seconds <= self._owner.extend_every:
            yield
            return

        async def extend() -> None:
            while True:
                await asyncio.sleep(self._owner.extend_every)
                with contextlib.suppress(CofounderError):  # the request itself reports what is wrong
                    await self._owner.connect(self.id)

        extending = asyncio.create_task(extend())
        try:
            yield
        finally:
            await cancel_and_wait(extending)

    async def _not_served(self, answer: httpx2.Response) -> bool:
        """Whether a 502 comes from the sandbox service itself, because no server listens on the port."""
        body = (await answer.aread())[:2000].decode("utf-8", "replace")
        return "port is not open" in body or "was not found" in body


class _Session:
    """A process of the runner that answers many requests, and the connection on which its answers come."""

    def __init__(self, owner: Sandboxes, sandbox_id: str) -> None:
        self.requests = RunnerSession()
        self._owner = owner
        self._what = f"ask the runner in sandbox {sandbox_id}"
        self._handle: e2b.AsyncCommandHandle[None]
        self._ended: asyncio.Task[None]

    @classmethod
    async def start(cls, owner: Sandboxes, sdk: e2b.AsyncSandbox, command: str) -> "_Session":
        """Start the runner. Raises as `Sandboxes.ask`."""
        session = cls(owner, sdk.sandbox_id)
        session._handle = await owner.ask(
            session._what,
            sdk.commands.run(
                command,
                background=True,
                stdin=True,
                cwd="/",
                timeout=0,  # no limit
                request_timeout=REQUEST_SECONDS - 1,
                on_stdout=session.requests.receive,
                retain_output=False,
            ),
        )
        session._ended = asyncio.create_task(session._until_end())
        return session

    async def send(self, line: str) -> None:
        """Write to the runner's input. Raises as `Sandboxes.ask`."""
        await self._owner.ask(self._what, self._handle.send_stdin(line, request_timeout=REQUEST_SECONDS - 1))

    async def close(self, *, ends_runner: bool) -> None:
        """Close the connection. Calls keep running, and so does the runner for a while, unless it is to end."""
        if ends_runner and not self.requests.has_ended:
            await _close_quietly(self._handle.close_stdin(request_timeout=CHECK_SECONDS))
        await cancel_and_wait(self._ended)
        await _close_quietly(self._handle.disconnect())

    async def _until_end(self) -> None:
        try:
            with contextlib.suppress(Exception):  # how it ended does not matter
                await self._handle.wait()
        finally:
            self.requests.end()


def _runner_command(words: list[str]) -> str:
    program = f"import sys;sys.path[:0]=[{JOURNAL!r}];import {RUNNER_MODULE} as runner;runner.main(sys.argv[1:])"
    return shlex.join(["exec", "python3", "-IS", "-c", program, *words])


_FULL = "The sandbox's disk is full. Choose a larger template (E2B_TEMPLATE)."


def _was_killed(output: CommandOutput) -> bool:
    """Whether a signal ended the process: E2B gives -1 as its exit code, a shell 128 and the signal's number."""
    return output.exit_code < 0 or output.exit_code > 128


def _is_overloaded(text: str) -> bool:
    """Whether a process could not be started. Go, in which E2B's server is written, begins it with a small letter."""
    reasons = (os.strerror(errno.EAGAIN), os.strerror(errno.ENOMEM))
    return any(reason.lower() in text.lower() for reason in reasons)


def _is_full(text: str) -> bool:
    return os.strerror(errno.ENOSPC) in text or os.strerror(errno.EDQUOT) in text


async def _close_quietly(closing: Awaitable[object]) -> None:
    """Close a connection that is no longer needed. Ignores errors, and does not wait long for a server that is gone."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CHECK_SECONDS):
            await closing


def _check_call_id(call_id: str) -> None:
    if not sandbox_runner.is_call_id(call_id):
        raise InvalidInput(f"{call_id[:200]!r} is not a valid call id. Use up to 128 letters, digits, _ and -.")


async def _await_with_calls(awaited: Awaitable[T], on_wait: Callable[[], None], every_seconds: float = 2.0) -> T:
    task = asyncio.ensure_future(awaited)
    try:
        while not (await asyncio.wait({task}, timeout=every_seconds))[0]:
            on_wait()
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
