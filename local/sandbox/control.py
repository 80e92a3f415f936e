"""E2B's control plane: create, list, get, extend, pause, resume and kill sandboxes. Bodies and fields are E2B's."""

import datetime
import hashlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl, unquote

from pydantic import AliasChoices, AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local.sandbox.errors import ApiError, not_served
from local.sandbox.guest_link import GuestLost
from local.sandbox.record import SandboxRecord
from local.sandbox.registry import Registry, TooManyRunning, TooManySandboxes
from local.sandbox.sandbox import BootFailed, Sandbox

log = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]

ENVD_VERSION = "0.6.13"
"""The version that the SDK is told; it uses what this version of envd can do."""

TEMPLATE = "base"
DEFAULT_TIMEOUT = 300
MAX_TIMEOUT = 24 * 3600
MAX_BODY_BYTES = 1 << 20
MAX_PAGE = 100
_LAST_SECOND = 99_999_999_999

NOT_SERVED_BELOW = (
    "access-tokens",
    "api-keys",
    "nodes",
    "sandboxes",
    "secrets",
    "snapshots",
    "teams",
    "templates",
    "v2",
    "v3",
    "volumes",
)
"""First segments of paths of E2B's API. A path below them without a route is answered as not served."""

Seconds = Annotated[int, Field(ge=0, le=MAX_TIMEOUT)]
AnyBody = TypeVar("AnyBody", bound=BaseModel)


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", populate_by_name=True)


class AutoResume(_Body):
    enabled: bool = False


_ALL = "0.0.0.0/0"


class NewSandbox(_Body):
    template: str = Field(alias="templateID")
    timeout: Seconds = DEFAULT_TIMEOUT
    auto_pause: bool = Field(False, alias="autoPause")
    auto_pause_memory: bool = Field(True, alias="autoPauseMemory")
    auto_resume: AutoResume | None = Field(None, alias="autoResume")
    metadata: dict[str, str] | None = None
    envs: dict[str, str] | None = Field(None, alias="envVars")
    allow_internet: bool | None = Field(
        None, validation_alias=AliasChoices("allow_internet_access", "allowInternetAccess")
    )
    network: dict[str, Any] | None = None
    mcp: Any = None
    iam: Any = None
    volume_mounts: Any = Field(None, alias="volumeMounts")


class NewTimeout(_Body):
    timeout: Seconds


class Pause(_Body):
    memory: bool = True


class Connect(_Body):
    timeout: Seconds = DEFAULT_TIMEOUT
    memory: bool = True


class Control:
    """The routes of the control plane. `server.py` has checked the caller's API key."""

    def __init__(self, registry: Registry, domain: str, reachable: Collection[str]) -> None:
        self._registry = registry
        self._reachable = frozenset(reachable)
        """Hosts that every sandbox of this server may reach."""
        self._domain = domain
        """The end of `get_host` names."""

    def routes(self) -> list[Route]:
        """E2B moved some routes to /v2 and kept the old ones. Both do the same here."""
        table = (
            ("", "POST", self.create),
            ("", "GET", self.list),
            ("/{id}", "GET", self.get),
            ("/{id}", "DELETE", self.kill),
            ("/{id}/metrics", "GET", self.metrics),
            ("/{id}/timeout", "POST", self.set_timeout),
            ("/{id}/pause", "POST", self.pause),
            ("/{id}/connect", "POST", self.connect),
        )
        return [
            Route(f"{version}/sandboxes{path}", self._noted(endpoint), methods=[method])
            for version in ("", "/v2")
            for path, method, endpoint in table
        ]

    def _noted(self, endpoint: Endpoint) -> Endpoint:
        """The same endpoint, whose calls that name a sandbox are logged for fault tests."""

        async def note(request: Request) -> Response:
            if (sandbox_id := request.path_params.get("id")) is not None:
                self._registry.note_call(sandbox_id, request.method, request.url.path)
            return await endpoint(request)

        return note

    def _differs(self, network: dict[str, Any] | None) -> bool:
        """Whether the request asks for other network rules than this server's. It may name the same hosts, and decide
        who reaches the sandbox's servers."""
        network = {name: value for name, value in (network or {}).items() if name != "allowPublicTraffic"}
        if not network:
            return False
        hosts = {host.lower() for host in network.get("allowOut", ()) if isinstance(host, str)}
        return network.keys() != {"allowOut", "denyOut"} or network["denyOut"] != [_ALL] or hosts != self._reachable

    async def create(self, request: Request) -> Response:
        raw = await _raw_body(request)
        body = _parse(NewSandbox, raw)
        if body.template != TEMPLATE:
            message = f"template '{body.template}' not found: the local sandbox server has only '{TEMPLATE}'"
            raise ApiError(404, message)
        for what, value in (
            ("network rules other than those it was started with", self._differs(body.network)),
            ("MCP servers", body.mcp),
            ("workload identities", body.iam),
            ("volumes", body.volume_mounts),
        ):
            if value:
                raise not_served(what)
        is_public = (body.network or {}).get("allowPublicTraffic")
        if is_public not in (None, True, False):
            raise ApiError(400, "network.allowPublicTraffic has to be true or false")
        resumes = body.auto_resume is not None and body.auto_resume.enabled
        if resumes and body.auto_pause and not body.auto_pause_memory:
            raise ApiError(400, "a sandbox that pauses without its memory cannot resume by itself")
        _check_environment(body.envs or {})
        now = time.time()
        record = SandboxRecord(
            id=SandboxRecord.new_id(),
            token=SandboxRecord.new_token(),
            traffic_token=SandboxRecord.new_traffic_token() if is_public is False else None,
            template=body.template,
            started_at=now,
            end_at=now + body.timeout,
            timeout=body.timeout,
            metadata=body.metadata or {},
            envs=body.envs or {},
            allow_internet=body.allow_internet,
            auto_pause=body.auto_pause,
            auto_pause_memory=body.auto_pause_memory,
            auto_resume=resumes,
            idempotency_key=request.headers.get("idempotency-key"),
            request_hash=hashlib.sha256(raw).hexdigest(),
        )
        try:
            sandbox = await self._registry.create(record)
        except TooManySandboxes as error:
            # Waiting does not help, so tell the SDK not to retry.
            raise ApiError(429, str(error), headers={"Should-Retry": "false"}) from error
        except TooManyRunning as error:
            raise ApiError(429, str(error)) from error
        except BootFailed as error:
            raise ApiError(500, f"the sandbox did not start: {error}") from error
        return JSONResponse(self._connection(sandbox), status_code=201)

    async def list(self, request: Request) -> Response:
        query = request.query_params
        states = set(query.get("state", "running,paused").split(","))
        if not states <= {"running", "paused"}:
            raise ApiError(400, "state has to be 'running', 'paused' or both")
        metadata = {unquote(key): unquote(value) for key, value in parse_qsl(query.get("metadata", ""))}
        offset = _number(query.get("nextToken", "0"), "nextToken", 0, 1 << 31)
        size = _number(query.get("limit", str(MAX_PAGE)), "limit", 1, MAX_PAGE)
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise ApiError(400, "order has to be 'asc' or 'desc'")
        after = _time(query["startedAfter"]) if "startedAfter" in query else 0.0
        matches = [
            sandbox
            for sandbox in self._registry.sandboxes.values()
            if _state(sandbox) in states
            and metadata.items() <= sandbox.record.metadata.items()
            and sandbox.record.started_at > after
            and query.get("template", sandbox.record.template) == sandbox.record.template
        ]
        matches.sort(key=lambda sandbox: (sandbox.record.started_at, sandbox.id), reverse=order == "desc")
        more = len(matches) > offset + size
        page = [self._detail(sandbox) for sandbox in matches[offset : offset + size]]
        return JSONResponse(page, headers={"x-next-token": str(offset + size)} if more else None)

    async def get(self, request: Request) -> Response:
        return JSONResponse(self._detail(self._sandbox(request)))

    async def metrics(self, request: Request) -> Response:
        """Samples between two Unix times. There are none of a sandbox whose processes have ended."""
        sandbox = self._sandbox(request)
        start, end = (
            _number(request.query_params.get(name, str(default)), name, 0, _LAST_SECOND)
            for name, default in (("start", 0), ("end", _LAST_SECOND))
        )
        samples: Any = []
        if sandbox.keeps_memory:
            try:
                samples = (await sandbox.call("usage")).value
            except GuestLost:
                log.info("sandbox %s ended while its metrics were asked for", sandbox.id)
        try:
            metrics = [_metric(sample, sandbox.limits.memory_bytes) for sample in samples]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ApiError(500, "the sandbox's reply does not describe what it uses") from error
        return JSONResponse([each for each in metrics if start <= each["timestampUnix"] <= end])

    async def kill(self, request: Request) -> Response:
        await self._sandbox(request).kill()
        return Response(status_code=204)

    async def set_timeout(self, request: Request) -> Response:
        body = _parse(NewTimeout, await _raw_body(request))
        sandbox = self._sandbox(request)
        if not sandbox.running:
            raise ApiError(404, f"sandbox {sandbox.id} is not running")
        sandbox.set_timeout(body.timeout)
        return Response(status_code=204)

    async def pause(self, request: Request) -> Response:
        body = _parse(Pause, await _raw_body(request))
        sandbox = self._sandbox(request)
        if not await sandbox.pause(memory=body.memory):
            raise ApiError(409, f"sandbox {sandbox.id} is already paused")
        return Response(status_code=204)

    async def connect(self, request: Request) -> Response:
        body = _parse(Connect, await _raw_body(request))
        sandbox = self._sandbox(request)
        try:
            resumed = await self._registry.resume(sandbox, memory=body.memory)
        except TooManyRunning as error:
            raise ApiError(429, str(error)) from error
        except GuestLost as error:
            raise ApiError(404, f"sandbox {sandbox.id} was not found") from error
        except BootFailed as error:
            raise ApiError(500, f"the sandbox did not start: {error}") from error
        sandbox.set_timeout(body.timeout, only_extend=not resumed)
        return JSONResponse(self._connection(sandbox), status_code=201 if resumed else 200)

    def _sandbox(self, request: Request) -> Sandbox:
        sandbox = self._registry.sandboxes.get(request.path_params["id"])
        if sandbox is None:
            raise ApiError(404, "sandbox was not found")
        return sandbox

    def _short(self, sandbox: Sandbox) -> dict[str, Any]:
        record = sandbox.record
        return {
            "templateID": record.template,
            "alias": record.template,
            "sandboxID": record.id,
            "clientID": "local",
            "envdVersion": ENVD_VERSION,
            "envdAccessToken": record.token,
            "domain": self._domain,
        }

    def _connection(self, sandbox: Sandbox) -> dict[str, Any]:
        """What the answers to `create` and `connect` have, and, as in E2B's cloud, no others: the traffic token."""
        token = sandbox.record.traffic_token
        return self._short(sandbox) | ({} if token is None else {"trafficAccessToken": token})

    def _detail(self, sandbox: Sandbox) -> dict[str, Any]:
        record = sandbox.record
        detail = self._short(sandbox) | {
            "startedAt": _iso(record.started_at),
            "endAt": _iso(record.end_at),
            "state": _state(sandbox),
            "cpuCount": os.cpu_count() or 1,
            "memoryMB": sandbox.limits.memory_bytes >> 20,
            "diskSizeMB": 0,  # not limited
            "metadata": record.metadata,
            "lifecycle": {
                "autoResume": record.auto_resume,
                "onTimeout": "pause" if record.auto_pause else "kill",
            },
        }
        if record.allow_internet is not None:
            detail["allowInternetAccess"] = record.allow_internet
        if not sandbox.running:
            detail["pauseMode"] = "full" if sandbox.keeps_memory else "filesystem"
        return detail


def _metric(sample: Any, memory_limit: int) -> dict[str, Any]:
    """One sample as the SDK reads it. It comes from inside the sandbox, so it may be anything."""
    return {
        "timestamp": _iso(sample["time"]),
        "timestampUnix": int(sample["time"]),
        "cpuCount": int(sample["cpus"]),
        "cpuUsedPct": round(float(sample["cpu_percent"]), 2),
        "memUsed": int(sample["memory"]),
        "memTotal": memory_limit,
        "memCache": 0,  # the kernel does not count it for each sandbox
        "diskUsed": int(sample["disk_used"]),
        "diskTotal": int(sample["disk_total"]),
    }


def _state(sandbox: Sandbox) -> str:
    return "running" if sandbox.running else "paused"


def _iso(timestamp: float) -> str:
    return datetime.datetime.fromtimestamp(timestamp, datetime.UTC).isoformat()


async def _raw_body(request: Request) -> bytes:
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise ApiError(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    except ClientDisconnect as error:
        raise ApiError(400, "the connection closed before the body was complete") from error
    return body


def _parse(model: type[AnyBody], raw: bytes) -> AnyBody:
    try:
        return model.model_validate_json(raw or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ApiError(400, f"{where or 'body'}: {first['msg']}") from error


def _check_environment(envs: dict[str, str]) -> None:
    for name, value in envs.items():
        if not name or "=" in name or "\0" in name + value:
            raise ApiError(400, "envVars: a name is empty or contains '=', or a name or value contains a NUL")


def _number(text: str, name: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 12 and least <= int(text) <= most):
        raise ApiError(400, f"{name} has to be a number from {least} to {most}")
    return int(text)


def _time(text: str) -> float:
    try:
        return TypeAdapter(AwareDatetime).validate_python(text).timestamp()
    except ValidationError as error:
        raise ApiError(400, "startedAfter has to be a time with a time zone") from error
