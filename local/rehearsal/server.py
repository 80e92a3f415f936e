"""The HTTP server: routes, streaming, and the log line of each request."""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from local.rehearsal.cache import InputUsage, PromptCache, breakpoints
from local.rehearsal.control import Control, Fault, Registration, change_reply, raise_fault
from local.rehearsal.conversation import Turn, read_conversation
from local.rehearsal.errors import ApiError, invalid
from local.rehearsal.models import ALWAYS_THINKS, known_models, model_info
from local.rehearsal.prefix import Prefix, read_prefix
from local.rehearsal.replies import (
    Event,
    Part,
    Reply,
    TextPart,
    ThinkingPart,
    ToolPart,
    cut_to,
    message_json,
    output_tokens,
    stream_events,
)
from local.rehearsal.requests import check_request, parse_body
from local.rehearsal.script import decide
from local.rehearsal.seals import check_seals, new_tool_use_id, sign_thinking
from local.rehearsal.served_log import ServedLog, usage_record

STREAM_FAULTS = ("stream_error", "cut", "early_end", "stall")


@dataclass
class _Record:
    """A request's line for the log, written once the request is over."""

    request_id: str
    time: str
    began: float
    """When it began, by the monotonic clock; not in the log."""
    model: str = ""
    status: int = 200
    usage: dict[str, int] = field(default_factory=lambda: usage_record(InputUsage(), 0))
    stop_reason: str | None = None
    stream: str | None = None
    """completed or cut; None if the request did not stream."""
    conversation: str = ""
    messages: int = 0
    fault: str | None = None
    error: str | None = None

    def line(self) -> dict[str, Any]:
        """Return the log line. Its `seconds` include reading the request and thinking."""
        fields = {name: value for name, value in self.__dict__.items() if name != "began"}
        return fields | {"seconds": round(time.monotonic() - self.began, 6)}


class Rehearsal:
    """The route handlers, and the server's state: cache, registrations and log."""

    def __init__(
        self,
        *,
        log: Path | None = None,
        bodies: Path | None = None,
        think_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.control = Control()
        self.cache = PromptCache(clock)
        self.log = ServedLog(log, bodies)
        self.think_seconds = think_seconds

    async def messages(self, request: Request) -> ASGIApp:
        """`POST /v1/messages`."""
        record = _Record(_new_id("req_011C"), datetime.now(UTC).isoformat(), time.monotonic())
        raw = await request.body()
        self.log.keep_body(record.request_id, raw)
        try:
            return self._answer(request, raw, record)
        except ApiError as error:
            record.status, record.error = error.status, error.message
            self.log.append(record.line())
            return _error_response(error, record.request_id)

    def _answer(self, request: Request, raw: bytes, record: _Record) -> ASGIApp:
        _authenticate(request)
        body = parse_body(raw)
        record.model = str(body.get("model", ""))
        check_request(body)
        record.messages = len(body["messages"])
        prefix = read_prefix(body)
        record.conversation = _conversation_key(prefix)
        check_seals(body, prefix)
        marks = breakpoints(prefix, body.get("cache_control"))
        conversation = read_conversation(body)
        fault = self.control.take_fault(conversation.system)
        record.fault = fault.kind if fault else None
        raise_fault(fault)
        turn = decide(self.control.script_for(conversation.system), conversation)
        reply = cut_to(change_reply(_reply(turn, body, prefix), fault), body["max_tokens"])
        usage = self.cache.serve(body["model"], prefix, marks)
        record.stop_reason = reply.stop_reason
        record.usage = usage_record(usage, output_tokens(reply))
        message_id = _new_id("msg_01")
        if body.get("stream"):
            events = list(stream_events(reply, message_id, body["model"], usage))
            return MessageStream(events, fault, self.think_seconds, record, self.log)
        return WholeMessage(
            message_json(reply, message_id, body["model"], usage), fault, self.think_seconds, record, self.log
        )

    async def count_tokens(self, request: Request) -> Response:
        """`POST /v1/messages/count_tokens`."""
        request_id = _new_id("req_011C")
        try:
            _authenticate(request)
            body = parse_body(await request.body())
            check_request(body, counting=True)
            return _json({"input_tokens": read_prefix(body).tokens}, request_id)
        except ApiError as error:
            return _error_response(error, request_id)

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`."""
        request_id = _new_id("req_011C")
        try:
            _authenticate(request)
        except ApiError as error:
            return _error_response(error, request_id)
        names = known_models()
        data = [model_info(name) for name in names]
        return _json({"data": data, "has_more": False, "first_id": names[0], "last_id": names[-1]}, request_id)

    async def model(self, request: Request) -> Response:
        """`GET /v1/models/{id}`."""
        request_id = _new_id("req_011C")
        name = request.path_params["name"]
        try:
            _authenticate(request)
            if name not in known_models():
                raise ApiError("not_found_error", f"model: {name}")
        except ApiError as error:
            return _error_response(error, request_id)
        return _json(model_info(name), request_id)

    # Control routes. They are not part of the vendor's API and need no key: the server listens on loopback only.

    async def served(self, _: Request) -> Response:
        """`GET /_rehearsal/served`."""
        return JSONResponse(self.log.lines())

    async def faults(self, request: Request) -> Response:
        """`GET`, `POST` (one or a list) and `DELETE /_rehearsal/faults`."""
        if request.method == "POST":
            return await _register(request, lambda value: self.control.add_fault(Fault.model_validate(value)))
        if request.method == "DELETE":
            self.control.faults.clear()
        return JSONResponse([fault.model_dump() for fault in self.control.faults])

    async def scripts(self, request: Request) -> Response:
        """`GET`, `POST` (one or a list) and `DELETE /_rehearsal/scripts`."""

        def add(value: Any) -> BaseModel:
            registration = Registration.model_validate(value)
            self.control.scripts.append(registration)
            return registration

        if request.method == "POST":
            return await _register(request, add)
        if request.method == "DELETE":
            self.control.scripts.clear()
        return JSONResponse([entry.model_dump() for entry in self.control.scripts])

    async def health(self, _: Request) -> Response:
        """`GET /_rehearsal/health`."""
        return JSONResponse({"ok": True})


def create_app(rehearsal: Rehearsal) -> Starlette:
    """Return the application with the vendor's routes and the control routes."""
    return Starlette(
        routes=[
            Route("/v1/messages", rehearsal.messages, methods=["POST"]),
            Route("/v1/messages/count_tokens", rehearsal.count_tokens, methods=["POST"]),
            Route("/v1/models", rehearsal.models),
            Route("/v1/models/{name}", rehearsal.model),
            Route("/_rehearsal/health", rehearsal.health),
            Route("/_rehearsal/served", rehearsal.served),
            Route("/_rehearsal/faults", rehearsal.faults, methods=["GET", "POST", "DELETE"]),
            Route("/_rehearsal/scripts", rehearsal.scripts, methods=["GET", "POST", "DELETE"]),
        ],
        exception_handlers={404: _not_found, 405: _not_found},
    )


async def _not_found(request: Request, _: Exception) -> Response:
    error = ApiError("not_found_error", f"The rehearsal model does not serve {request.method} {request.url.path}.")
    return _error_response(error, _new_id("req_011C"))


async def _register(request: Request, add: Callable[[Any], BaseModel]) -> Response:
    try:
        body = json.loads(await request.body())
        entries = [add(entry).model_dump() for entry in (body if isinstance(body, list) else [body])]
    except (ValidationError, ValueError) as error:
        return JSONResponse({"detail": str(error)}, status_code=422)
    return JSONResponse(entries if isinstance(body, list) else entries[0], status_code=201)


def _new_id(start: str) -> str:
    return start + secrets.token_hex(10)


def _json(value: Any, request_id: str) -> Response:
    return JSONResponse(value, headers={"request-id": request_id})


def _error_response(error: ApiError, request_id: str) -> Response:
    headers = {"request-id": request_id, **error.headers}
    return JSONResponse(error.body(request_id), status_code=error.status, headers=headers)


def _authenticate(request: Request) -> None:
    if not request.headers.get("x-api-key") and not request.headers.get("authorization"):
        raise ApiError("authentication_error", "x-api-key header is required")
    if not request.headers.get("anthropic-version"):
        raise invalid("anthropic-version: header is required")


def _conversation_key(prefix: Prefix) -> str:
    """Return a key that all requests of a conversation share, from its tools, system prompt and first message."""
    first = next((block.chain for block in prefix.blocks if block.part == "messages"), "")
    return (prefix.tools[:4] + prefix.system[:4] + first[:8]).ljust(16, "0")


def _reply(turn: Turn, body: dict[str, Any], prefix: Prefix) -> Reply:
    """Return the turn as message blocks with fresh ids, and with thinking in the form that the request asks for."""
    thinking = body.get("thinking") or {}
    always = body["model"] in ALWAYS_THINKS
    display = thinking.get("display") or ("omitted" if always else "summarized")
    parts: list[Part] = []
    if turn.thinking and (always or thinking.get("type") in ("enabled", "adaptive")):
        thinking_text = turn.thinking if display == "summarized" else ""
        parts.append(ThinkingPart(thinking_text, sign_thinking(thinking_text, prefix)))
    silent = always and display != "summarized" and turn.calls
    if turn.text and not silent:
        parts.append(TextPart(turn.text))
    parts += [
        ToolPart(new_tool_use_id(prefix), call.tool, json.dumps(call.input, ensure_ascii=False)) for call in turn.calls
    ]
    return Reply(tuple(parts), "tool_use" if turn.calls else "end_turn")


class _Disconnected(Exception):
    """The client closed the connection."""


class _Answer:
    """A response that notices a disconnected client, and writes its log line once it is over."""

    def __init__(self, fault: Fault | None, think_seconds: float, record: _Record, log: ServedLog) -> None:
        self._fault = fault
        self._think_seconds = think_seconds
        self._record = record
        self._log = log
        self._disconnect = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watcher = asyncio.create_task(self._watch(receive))
        try:
            await self._send(send)
        except _Disconnected:
            self._mark_cut()
        finally:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher
            self._log.append(self._record.line())

    async def _send(self, send: Send) -> None:
        raise NotImplementedError

    def _mark_cut(self) -> None:
        """Record that the client did not get the whole answer."""
        self._record.stop_reason = None
        self._record.stream = "cut"

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._disconnect.set()

    async def _wait(self, seconds: float) -> None:
        if seconds > 0:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._disconnect.wait(), seconds)
        else:
            await asyncio.sleep(0)  # lets the watcher see a disconnect
        if self._disconnect.is_set():
            raise _Disconnected

    async def _start(self, send: Send, kind: str, *headers: tuple[bytes, bytes]) -> None:
        fixed = [(b"content-type", kind.encode()), (b"request-id", self._record.request_id.encode())]
        await send({"type": "http.response.start", "status": self._record.status, "headers": [*fixed, *headers]})


class MessageStream(_Answer):
    """A message as server-sent events, with the faults of a stream."""

    def __init__(
        self, events: list[Event], fault: Fault | None, think_seconds: float, record: _Record, log: ServedLog
    ) -> None:
        super().__init__(fault, think_seconds, record, log)
        self._events = events
        self._sent_tokens = 0
        record.stream = "completed"

    async def _send(self, send: Send) -> None:
        kind = self._fault.kind if self._fault and self._fault.kind in STREAM_FAULTS else None
        breaking_point = _middle(self._events) if kind else len(self._events)
        await self._start(send, "text/event-stream; charset=utf-8", (b"cache-control", b"no-cache"))
        pause = self._think_seconds / max(1, sum(event.visible for event in self._events))
        for event in self._events[:breaking_point]:
            await self._wait(pause if event.visible else 0)
            await self._write(send, event)
        if kind == "stall" and self._fault:
            await self._wait(self._fault.seconds)
            for event in self._events[breaking_point:]:
                await self._wait(0)
                await self._write(send, event)
        elif kind:
            self._mark_cut()
        if kind == "stream_error":
            error = ApiError("overloaded_error", "Overloaded").body(self._record.request_id)
            await send({"type": "http.response.body", "body": Event("error", error, 0).encode(), "more_body": True})
        if kind == "cut":
            return  # the server closes the connection of an unfinished response
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _mark_cut(self) -> None:
        super()._mark_cut()
        self._record.usage["output"] = self._sent_tokens

    async def _write(self, send: Send, event: Event) -> None:
        self._sent_tokens = event.output_tokens
        await send({"type": "http.response.body", "body": event.encode(), "more_body": True})


class WholeMessage(_Answer):
    """A message in one piece. Here a stream's fault is a closed connection or a delay."""

    def __init__(
        self, message: dict[str, Any], fault: Fault | None, think_seconds: float, record: _Record, log: ServedLog
    ) -> None:
        super().__init__(fault, think_seconds, record, log)
        self._message = message

    async def _send(self, send: Send) -> None:
        kind = self._fault.kind if self._fault else None
        await self._wait(self._think_seconds)
        if kind == "stall" and self._fault:
            await self._wait(self._fault.seconds)
        data = json.dumps(self._message, ensure_ascii=False).encode()
        await self._start(send, "application/json", (b"content-length", str(len(data)).encode()))
        if kind in STREAM_FAULTS and kind != "stall":
            self._mark_cut()
            await send({"type": "http.response.body", "body": data[: len(data) // 2], "more_body": True})
            return
        await send({"type": "http.response.body", "body": data, "more_body": False})


def _middle(events: Iterable[Event]) -> int:
    """Return where a stream breaks: in the middle of the last tool input, or of the whole if there is none."""
    items = list(events)
    tools = [
        index for index, event in enumerate(items) if event.data.get("delta", {}).get("type") == "input_json_delta"
    ]
    inside = [index for index in tools if items[index].data["index"] == items[tools[-1]].data["index"]] if tools else []
    return inside[len(inside) // 2] if len(inside) > 1 else max(3, len(items) // 2)
