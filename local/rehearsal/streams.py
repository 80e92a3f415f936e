"""The two forms of a response: a stream of events, or one message; each with the faults that strike it on its way."""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send

from local.rehearsal.cache import InputUsage
from local.rehearsal.control import Fault
from local.rehearsal.errors import ApiError
from local.rehearsal.rates import RateLimits
from local.rehearsal.replies import Event
from local.rehearsal.served_log import ServedLog, usage_record

STREAM_FAULTS = ("stream_error", "cut", "early_end", "stall", "endless_pings")


@dataclass
class Record:
    """A request's line for the log, written once the request is over."""

    request_id: str
    time: str
    began: float
    """When it began, by the monotonic clock; not in the log."""
    model: str = ""
    status: int = 200
    usage: dict[str, int] = field(default_factory=lambda: usage_record(InputUsage(), 0))
    """Tokens of all samplings together."""
    iterations: list[dict[str, Any]] = field(default_factory=list)
    """Each sampling: kind, model, tokens by class, and whether it is billed."""
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


class _Disconnected(Exception):
    """The client closed the connection."""


class _Answer:
    """A response that notices a disconnected client, and writes its log line once it is over."""

    def __init__(
        self, fault: Fault | None, think_seconds: float, record: Record, log: ServedLog, rates: RateLimits
    ) -> None:
        self._rates = rates
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
        limits = [(name.encode(), value.encode()) for name, value in self._rates.headers(self._record.model).items()]
        start = {"type": "http.response.start", "status": self._record.status, "headers": [*fixed, *limits, *headers]}
        await send(start)


class MessageStream(_Answer):
    """A message as server-sent events, with the faults of a stream."""

    def __init__(
        self,
        events: list[Event],
        fault: Fault | None,
        think_seconds: float,
        record: Record,
        log: ServedLog,
        rates: RateLimits,
    ) -> None:
        super().__init__(fault, think_seconds, record, log, rates)
        self._events = events
        self._sent_tokens = 0
        record.stream = "completed"

    async def _send(self, send: Send) -> None:
        kind = self._fault.kind if self._fault and self._fault.kind in STREAM_FAULTS else None
        breaking_point = _middle(self._events) if kind else len(self._events)
        if kind == "endless_pings":
            breaking_point = 1
        await self._start(send, "text/event-stream; charset=utf-8", (b"cache-control", b"no-cache"))
        pause = self._think_seconds / max(1, sum(event.visible for event in self._events))
        for event in self._events[:breaking_point]:
            await self._wait(pause if event.visible else 0)
            await self._write(send, event)
        while kind == "endless_pings" and self._fault:
            await self._write(send, Event("ping", {"type": "ping"}, self._sent_tokens))
            await self._wait(self._fault.interval)
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
        if len(self._record.iterations) == 1:
            self._record.iterations[0]["output"] = self._sent_tokens

    async def _write(self, send: Send, event: Event) -> None:
        self._rates.produce(self._record.model, event.output_tokens - self._sent_tokens)
        self._sent_tokens = event.output_tokens
        await send({"type": "http.response.body", "body": event.encode(), "more_body": True})


class WholeMessage(_Answer):
    """A message in one piece. Here a stream's fault is a closed connection or a delay."""

    def __init__(
        self,
        message: dict[str, Any],
        fault: Fault | None,
        think_seconds: float,
        record: Record,
        log: ServedLog,
        rates: RateLimits,
    ) -> None:
        super().__init__(fault, think_seconds, record, log, rates)
        self._message = message

    async def _send(self, send: Send) -> None:
        kind = self._fault.kind if self._fault else None
        await self._wait(self._think_seconds)
        if kind in ("stall", "endless_pings") and self._fault:
            await self._wait(self._fault.seconds)
        data = json.dumps(self._message, ensure_ascii=False).encode()
        self._rates.produce(self._record.model, self._record.usage["output"])
        await self._start(send, "application/json", (b"content-length", str(len(data)).encode()))
        if kind in ("stream_error", "cut", "early_end"):
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
