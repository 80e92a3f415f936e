"""Passes requests on to a product, and its answers back, at the pace of the slower side."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import httpcore2
import structlog
from starlette.types import Message, Receive, Scope, Send

from api.gateway.headers import HeaderList, Route, request_headers, response_headers
from api.gateway.upstream import Upstreams

log = structlog.get_logger(__name__)

NO_ANSWER = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException)
"""What a product does instead of answering."""

Lost = Callable[[], Coroutine[Any, Any, None]]
"""Returns when the visitor may not see the preview any longer."""


class ProductDown(Exception):
    """The product has not answered, and nothing was sent to the visitor. `status` is 502 or 504."""

    def __init__(self, status: int) -> None:
        super().__init__(f"answered with {status} for the product")
        self.status = status


class AccessLost(Exception):
    """The visitor lost access before the product had answered, and nothing was sent to the visitor."""


class _VisitorGone(Exception):
    """The visitor has closed the connection before the request was complete."""


class Proxy:
    """Serves products over HTTP.

    `is_ours`: whether a text of `Authorization` is a credential for the API, which no product gets.
    """

    def __init__(self, upstreams: Upstreams, is_ours: Callable[[str], bool]) -> None:
        self._upstreams = upstreams
        self._is_ours = is_ours

    async def serve(self, scope: Scope, receive: Receive, send: Send, route: Route, lost: Lost) -> None:
        """Pass a request on, and its answer back. A visitor who loses access is cut off.

        Raises:
            ProductDown: there is no answer.
            AccessLost: the visitor lost access first.
        """
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        body = _Body(receive, has_body(scope["headers"]))
        passing = asyncio.create_task(self._pass(scope, body, send_and_note, route))
        leaving, losing = asyncio.create_task(body.until_gone()), asyncio.create_task(lost())
        try:
            await asyncio.wait([passing, leaving, losing], return_when=asyncio.FIRST_COMPLETED)
            if losing.done() and not passing.done() and not started:
                raise AccessLost
            if passing.done():
                await passing
        except _VisitorGone:
            pass
        finally:
            for task in (passing, leaving, losing):
                task.cancel()
            await asyncio.wait([passing, leaving, losing])

    async def ask(self, scope: Scope, route: Route, framing: HeaderList, body: "_Body | None") -> httpcore2.Response:
        """Pass a request on and return its answer, of which only the head has been read.

        Raises:
            ProductDown: there is none.
        """
        client = scope["client"][0] if scope.get("client") else None
        headers = request_headers(scope["headers"], route, client, self._is_ours) + framing
        query = scope["query_string"]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        pieces = body.pieces() if body is not None and body.exists else None
        try:
            return await self._upstreams.ask(route.upstream, scope["method"], target, headers, pieces)
        except httpcore2.TimeoutException as error:
            raise ProductDown(504) from error
        except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            raise ProductDown(502) from error

    async def _pass(self, scope: Scope, body: "_Body", send: Send, route: Route) -> None:
        answer = await self.ask(scope, route, _framing(scope["headers"]), body)
        async with contextlib.aclosing(answer):
            if not 200 <= answer.status < 600:
                raise ProductDown(502)  # a change of the protocol, for which no one has asked, or no status at all
            headers = response_headers(answer.headers, route)
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            try:
                async for piece in pieces_of(answer):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            except NO_ANSWER as error:
                # The server closes the connection without the answer's end, so the visitor notices.
                log.info("a product's answer broke off", error=type(error).__name__)
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Body:
    """The body of a request, and the visitor's leaving: one `receive` tells both."""

    def __init__(self, receive: Receive, exists: bool) -> None:
        self.exists = exists
        self._receive = receive
        self._is_read = asyncio.Event()
        if not exists:
            self._is_read.set()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it arrives.

        Raises:
            _VisitorGone: it ends too early.
        """
        try:
            more = True
            while more:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise _VisitorGone
                more = message.get("more_body", False)
                if piece := message.get("body", b""):
                    yield piece
        finally:
            self._is_read.set()  # or the product does not want the rest

    async def until_gone(self) -> None:
        """Wait until the visitor has left. What is left of the body is read and dropped."""
        await self._is_read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def pieces_of(answer: httpcore2.Response) -> AsyncIterator[bytes]:
    """The body of an answer as it arrives."""
    stream: Any = answer.stream
    async for piece in stream:
        yield piece


def has_body(headers: HeaderList) -> bool:
    """Whether a request says that a body follows."""
    return any(name in (b"content-length", b"transfer-encoding") and value != b"0" for name, value in headers)


def _framing(headers: HeaderList) -> HeaderList:
    """The one header that says how long a request's body is."""
    if not has_body(headers):
        return [(name, value) for name, value in headers if name == b"content-length"]
    lengths = [(name, value) for name, value in headers if name == b"content-length"]
    return lengths[:1] or [(b"transfer-encoding", b"chunked")]
