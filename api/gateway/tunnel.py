"""WebSockets between a visitor and a product: a checked handshake, then bytes as they are.

The gateway reads no frames, so extensions, subprotocols, close codes and frames of any size are between the two.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import h11
import httpcore2
from starlette.types import Scope
from uvicorn import Config
from uvicorn.server import ServerState

from api.gateway.headers import HeaderList, Route, response_headers
from api.gateway.proxy import NO_ANSWER, Lost, ProductDown, Proxy, has_body, pieces_of

_CHUNK_BYTES = 1 << 16

_REFUSAL_BYTES = 1 << 20
"""Longest answer of a product that refuses a handshake; the rest is cut off."""


class Refusal(Exception):
    """A handshake that is answered with a status and a sentence instead of a WebSocket."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


Admit = Callable[[Scope], Awaitable[tuple[Proxy, Route, Lost]]]
"""Checks a handshake, and says where it leads. Raises `Refusal`."""


class Tunnel(asyncio.StreamReaderProtocol):
    """uvicorn's protocol for connections that ask for a WebSocket, for its `ws` option.

    uvicorn gives it the connection with the head of the request, and nothing that came after it.
    """

    def __init__(self, admit: Admit, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        super().__init__(asyncio.StreamReader(), self._accept)
        self._admit = admit
        self._state = server_state
        self._serving: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve the connection."""
        self._state.connections.add(self)  # type: ignore[arg-type]  # the server only calls `shutdown`
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the connection to the product as well."""
        self._state.connections.discard(self)
        if self._serving is not None:
            self._serving.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End the connection, as the server stops. The page connects again."""
        if self._serving is not None:
            self._serving.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving = asyncio.get_running_loop().create_task(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            scope = await _read_handshake(reader, writer)
            proxy, route, lost = await self._admit(scope)
            framing = [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
            answer = await proxy.ask(scope, route, framing, None)
            async with contextlib.aclosing(answer):
                if answer.status == 101:
                    await _splice(reader, writer, answer, route, lost)
                else:
                    await _pass_refusal(writer, answer, route)
        except Refusal as refusal:
            writer.write(_head(refusal.status, _PLAIN, str(refusal).encode()))
        except ProductDown as down:
            writer.write(_head(down.status, _PLAIN, b"The product does not answer.\n"))
        except (OSError, asyncio.IncompleteReadError, *NO_ANSWER):
            pass  # either side has left
        finally:
            writer.close()


_PLAIN: HeaderList = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff")]


async def _read_handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Scope:
    """The request for a WebSocket, as a scope.

    Raises:
        Refusal: it is not one.
    """
    head = await reader.readuntil(b"\r\n\r\n")
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head)
    event = connection.next_event()
    assert isinstance(event, h11.Request), "uvicorn has read it before"
    headers = list(event.headers)
    if event.method != b"GET" or has_body(headers) or not event.target.startswith(b"/"):
        raise Refusal(400, "This is not a request for a WebSocket.")
    path, _, query = event.target.partition(b"?")
    return {
        "type": "websocket",
        "method": "GET",
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "query_string": query,
        "headers": headers,
        "client": writer.get_extra_info("peername"),
    }


async def _splice(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: httpcore2.Response, route: Route, lost: Lost
) -> None:
    """Pass the answer and then bytes in both directions, until either side ends or the visitor loses access."""
    product = answer.extensions["network_stream"]
    sent = [each for each in answer.headers if each[0].lower() not in (b"connection", b"upgrade", b"content-length")]
    changed = [(b"connection", b"Upgrade"), (b"upgrade", b"websocket"), *response_headers(sent, route)]
    writer.write(_lines(b"101 Switching Protocols", changed))

    async def to_product() -> None:
        while data := await reader.read(_CHUNK_BYTES):
            await product.write(data)

    async def to_visitor() -> None:
        while data := await product.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()

    tasks = [asyncio.create_task(each) for each in (to_product(), to_visitor(), lost())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[-1].done():
            writer.transport.abort()  # at once, even if the visitor reads slowly
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass_refusal(writer: asyncio.StreamWriter, answer: httpcore2.Response, route: Route) -> None:
    """Pass on the answer of a product that does not open a WebSocket."""
    headers = [each for each in response_headers(answer.headers, route) if each[0] != b"content-length"]
    body = b""
    async for piece in pieces_of(answer):
        body += piece
        if len(body) > _REFUSAL_BYTES:
            break
    writer.write(_head(answer.status, headers, body[:_REFUSAL_BYTES]))


def _head(status: int, headers: HeaderList, body: bytes) -> bytes:
    """A whole answer, after which the connection ends."""
    framing = [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    return _lines(str(status).encode() + b" ", headers + framing) + body


def _lines(status: bytes, headers: HeaderList) -> bytes:
    return b"HTTP/1.1 " + status + b"\r\n" + b"".join(b"%b: %b\r\n" % each for each in headers) + b"\r\n"
