"""Serve E2B's wire protocol with sandboxes in which nothing runs, for fleets that no machine has room for.

    python -m bench.empty_sandboxes --port 49982 [--tool-seconds 0.05]

Every command ends at once without output, every tool call ends after `--tool-seconds` with the same 3 KB, and no file
exists. So it measures the client's side of a sandbox, and nothing of what happens inside.
"""

import argparse
import asyncio
import json
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, unquote

import uvicorn
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from e2b.envd.filesystem import filesystem_pb
from e2b.envd.filesystem.filesystem_connect import Filesystem, FilesystemASGIApplication
from e2b.envd.process import process_pb as pb
from e2b.envd.process.process_connect import Process, ProcessASGIApplication
from protobuf import Oneof
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from local.sandbox.rpc import Context

READY = "empty sandboxes are served"

_BOOT = b"00000000-0000-4000-8000-000000000000\n1 (init) S " + b"0 " * 49 + b"\n"
_KEEPALIVE_SECONDS = 30.0


def _source() -> str:
    """Three KB of text that compresses about as well as the output of programs does."""
    lines = (f"{number:04d} ok test_case_{number * 7919 % 1000:03d} {number * 31 % 97} ms" for number in range(95))
    return "\n".join(lines)


_DONE = {"state": "done", "is_error": False, "exit_code": 0, "text": _source(), "output_bytes": 3000, "seconds": 0.05}
_READ = {"text": _source(), "is_error": False}


class _Runner:
    """A process of the runner: requests as lines of JSON, and an answer for each."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()
        self._unread = b""
        self._answering: set[asyncio.Task[None]] = set()

    def write(self, data: bytes, tool_seconds: float) -> None:
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in filter(None, lines):
            task = asyncio.create_task(self._answer(json.loads(line), tool_seconds))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(self, request: dict[str, Any], tool_seconds: float) -> None:
        what = request["words"][0]
        await asyncio.sleep(tool_seconds if what == "start" else 0)
        answer = _DONE if what == "start" else _READ if what == "query" else {}
        await self.answers.put(json.dumps({"number": request["number"], "answer": answer}).encode() + b"\n")


class _Processes(Process):
    def __init__(self, tool_seconds: float) -> None:
        self._tool_seconds = tool_seconds
        self._runners: dict[int, _Runner] = {}
        self._last = 100

    async def start(self, request: pb.StartRequest, ctx: Context) -> AsyncIterator[pb.StartResponse]:
        words = list(request.process.args) if request.process is not None else []
        self._last += 1
        pid = self._last
        yield _response("start", pb.ProcessEvent.StartEvent(pid=pid))
        command = words[-1] if words else ""
        if command.endswith(" serve"):
            runner = self._runners[pid] = _Runner()
            try:
                while True:
                    try:
                        async with asyncio.timeout(_KEEPALIVE_SECONDS):
                            line = await runner.answers.get()
                    except TimeoutError:
                        yield _response("keepalive", pb.ProcessEvent.KeepAlive())
                        continue
                    yield _response("data", _output(line))
            finally:
                del self._runners[pid]
        if "/proc/1/stat" in command:
            yield _response("data", _output(_BOOT))
        yield _response("end", pb.ProcessEvent.EndEvent(exit_code=0, exited=True, status="exit status 0"))

    async def send_input(self, request: pb.SendInputRequest, ctx: Context) -> pb.SendInputResponse:
        selected = request.process.selector if request.process is not None else None
        runner = self._runners.get(selected.value) if selected is not None and selected.field == "pid" else None
        if runner is None:
            raise ConnectError(Code.NOT_FOUND, "no such process")
        if request.input is not None and isinstance(request.input.input, Oneof):
            runner.write(request.input.input.value, self._tool_seconds)
        return pb.SendInputResponse()


class _Directories(Filesystem):
    async def make_dir(self, request: filesystem_pb.MakeDirRequest, ctx: Context) -> filesystem_pb.MakeDirResponse:
        return filesystem_pb.MakeDirResponse(entry=filesystem_pb.EntryInfo(path=request.path))


def _output(data: bytes) -> pb.ProcessEvent.DataEvent:
    output: Any = Oneof("stdout", data)
    return pb.ProcessEvent.DataEvent(output=output)


def _response(field: str, value: Any) -> pb.StartResponse:
    event: Any = Oneof(field, value)  # the generated types accept only literal names
    return pb.StartResponse(event=pb.ProcessEvent(event=event))


class _Control:
    """The control plane: sandboxes are names."""

    def __init__(self) -> None:
        self._metadata: dict[str, dict[str, str]] = {}
        self._paused = set[str]()

    def routes(self) -> list[Route]:
        table = (
            ("", "POST", self._create),
            ("", "GET", self._list),
            ("/{id}", "GET", self._get),
            ("/{id}", "DELETE", self._kill),
            ("/{id}/timeout", "POST", self._nothing),
            ("/{id}/pause", "POST", self._pause),
            ("/{id}/connect", "POST", self._connect),
        )
        return [
            Route(f"{version}/sandboxes{path}", endpoint, methods=[method])
            for version in ("", "/v2")
            for path, method, endpoint in table
        ]

    async def _create(self, request: Request) -> Response:
        sandbox_id = secrets.token_hex(10)
        self._metadata[sandbox_id] = (await request.json()).get("metadata") or {}
        return JSONResponse(self._connection(sandbox_id), status_code=201)

    async def _list(self, request: Request) -> Response:
        asked = {key: unquote(value) for key, value in parse_qsl(request.query_params.get("metadata", ""))}
        found = [each for each, metadata in self._metadata.items() if asked.items() <= metadata.items()]
        offset = int(request.query_params.get("nextToken", "0"))
        page = found[offset : offset + 100]
        more = {"x-next-token": str(offset + 100)} if len(found) > offset + 100 else None
        return JSONResponse([self._detail(each) for each in page], headers=more)

    async def _get(self, request: Request) -> Response:
        return JSONResponse(self._detail(request.path_params["id"]))

    async def _kill(self, request: Request) -> Response:
        self._metadata.pop(request.path_params["id"], None)
        return Response(status_code=204)

    async def _nothing(self, request: Request) -> Response:
        return Response(status_code=204)

    async def _pause(self, request: Request) -> Response:
        self._paused.add(request.path_params["id"])
        return Response(status_code=204)

    async def _connect(self, request: Request) -> Response:
        sandbox_id = request.path_params["id"]
        if sandbox_id not in self._metadata:
            return JSONResponse({"code": 404, "message": "sandbox was not found"}, status_code=404)
        self._paused.discard(sandbox_id)
        return JSONResponse(self._connection(sandbox_id))

    def _connection(self, sandbox_id: str) -> dict[str, Any]:
        token = {"envdAccessToken": "empty", "trafficAccessToken": "empty", "domain": "localhost"}
        return {"templateID": "base", "sandboxID": sandbox_id, "clientID": "bench", "envdVersion": "0.4.0", **token}

    def _detail(self, sandbox_id: str) -> dict[str, Any]:
        now = datetime.now(UTC)
        return self._connection(sandbox_id) | {
            "startedAt": (now - timedelta(minutes=1)).isoformat(),
            "endAt": (now + timedelta(hours=1)).isoformat(),
            "state": "paused" if sandbox_id in self._paused else "running",
            "cpuCount": 1,
            "memoryMB": 512,
            "diskSizeMB": 0,
            "metadata": self._metadata.get(sandbox_id, {}),
        }


async def _no_file(request: Request) -> Response:
    return JSONResponse({"code": 404, "message": "there is no file"}, status_code=404)


async def _stored(request: Request) -> Response:
    async for _ in request.stream():
        pass
    path = request.query_params.get("path", "/file")
    return JSONResponse([{"name": path.rpartition("/")[2], "type": "file", "path": path}])


def application(tool_seconds: float) -> Starlette:
    """The ASGI application."""
    processes = ProcessASGIApplication(_Processes(tool_seconds))
    directories = FilesystemASGIApplication(_Directories())
    envd: Sequence[Any] = [
        Route("/health", lambda _: Response(status_code=204)),
        Route("/files", _no_file, methods=["GET"]),
        Route("/files", _stored, methods=["POST"]),
        Mount(processes.path, processes),
        Mount(directories.path, directories),
    ]
    return Starlette(routes=[*_Control().routes(), *envd])


class _Server(uvicorn.Server):
    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        sys.stderr.write(f"{READY}\n")


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tool-seconds", type=float, default=0.05, help="seconds that a tool call takes")
    options = parser.parse_args()
    config = uvicorn.Config(
        application(options.tool_seconds),
        host="127.0.0.1",
        port=options.port,
        lifespan="off",
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=1,
        backlog=2048,
    )
    _Server(config).run()


if __name__ == "__main__":
    main()
