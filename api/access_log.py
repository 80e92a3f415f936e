"""Logs one line for each request, and counts it. Every log line of a request has its id."""

import time

import structlog
from opentelemetry.trace import Span, SpanKind
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from observing import metrics, traces
from observing.log_content import hash_of_user
from observing.trace_ids import request_ids

_UNLOGGED = frozenset({"/healthz", "/readyz"})
"""Probes ask every few seconds."""

_OTHER = "other"
"""The route of a request for an address that does not exist, and the method of one that HTTP does not know: what a
client makes up must not become a label."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_log = structlog.get_logger("api.access")


class AccessLog:
    """Needs the request's id, so it comes behind `RequestIds`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and log it once it has been answered. A live feed is logged when it ends."""
        if scope["type"] != "http" or scope["path"] in _UNLOGGED:
            await self._app(scope, receive, send)
            return
        began, status, answered = time.monotonic(), 500, None

        async def send_and_note(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], time.monotonic()
            await send(message)

        request_id: str = scope["state"]["request_id"]
        made = traces.first_span(scope["method"], request_ids(request_id), kind=SpanKind.SERVER)
        with bound_contextvars(request_id=request_id), traces.current(made):
            try:
                await self._app(scope, receive, send_and_note)
            finally:
                ended = answered or time.monotonic()
                _end_span(made, scope, status, time.monotonic() - ended)
                _note(scope, status, ended - began, time.monotonic() - began)


def _route(scope: Scope) -> str:
    """The template of the request's address, with what its routers put before it."""
    route = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    return getattr(route, "path", None) or _OTHER


def _end_span(made: Span, scope: Scope, status: int, ago: float) -> None:
    """End the span, which ended so many seconds ago: a live feed lasts as long as someone looks at it."""
    route = _route(scope)
    method = scope["method"] if scope["method"] in _METHODS else _OTHER
    made.update_name(f"{method} {route}")
    made.set_attributes({"http.request.method": method, "http.route": route, "http.response.status_code": status})
    made.end(end_time=time.time_ns() - int(ago * 1e9))


def _note(scope: Scope, status: int, to_response: float, whole: float) -> None:
    route = _route(scope)
    method = scope["method"] if scope["method"] in _METHODS else _OTHER
    metrics.API_REQUESTS.labels(method, route, str(status)).inc()
    metrics.API_SECONDS.labels(method, route).observe(to_response)
    _log.info(
        "request",
        method=method,
        route=route,
        status=status,
        ms=round(to_response * 1000, 1),
        whole_ms=round(whole * 1000, 1),
        user=None if (user_id := scope["state"].get("user_id")) is None else hash_of_user(user_id),
    )
