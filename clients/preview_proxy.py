"""An HTTP proxy that leads to one server only, for a browser that shows untrusted pages.

Blocking requests in the browser would miss redirects, frames and sockets of the page. Nothing gets past a proxy.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from clients.loopback import address_of

_HEAD_BYTES = 64 * 1024
_CONNECT_SECONDS = 10
_REFUSED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_UNREACHABLE = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@asynccontextmanager
async def proxy_to(url: str) -> AsyncIterator[str]:
    """Run a proxy to the server of `url` during the block; yields the proxy's own URL."""
    parts = urlsplit(url)
    allowed = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            connections.add(task)
            task.add_done_callback(connections.discard)
        # The browser notices a broken connection by itself.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            await _serve(reader, writer, allowed)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=_HEAD_BYTES)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for connection in list(connections):
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, allowed: tuple[str, int]) -> None:
    """Serve one request of a connection; a tunnel (TLS, WebSocket) counts as one."""
    head = await reader.readuntil(b"\r\n\r\n")
    method, target, rest = head.split(b" ", 2)
    tunnel = method == b"CONNECT"
    parts = urlsplit(b"//" + target if tunnel else target)
    if ((parts.hostname or b"").decode(), parts.port or (443 if tunnel else 80)) != allowed:
        writer.write(_REFUSED)
        await writer.drain()
        return
    host, port = allowed
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            server_reader, server_writer = await asyncio.open_connection(address_of(host), port, limit=_HEAD_BYTES)
    except (OSError, TimeoutError):
        writer.write(_UNREACHABLE)
        await writer.drain()
        return
    try:
        if tunnel:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(_copy(reader, server_writer), _copy(server_reader, writer))
            return
        path = (parts.path or b"/") + (b"?" + parts.query if parts.query else b"")
        server_writer.write(_with_connection_close(method + b" " + path + b" " + rest))
        server_writer.write(await reader.readexactly(_body_length(head)))
        await server_writer.drain()
        writer.write(_with_connection_close(await server_reader.readuntil(b"\r\n\r\n")))
        await _copy(server_reader, writer)
    finally:
        server_writer.close()


def _with_connection_close(head: bytes) -> bytes:
    """The head of a message with `Connection: close`, so that every request is checked on a connection of its own."""
    rest = re.sub(rb"(?im)^(?:proxy-)?(?:connection|keep-alive):[^\r\n]*\r\n", b"", head)
    return rest.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)


def _body_length(head: bytes) -> int:
    length = re.search(rb"(?im)^content-length:\s*(\d+)\s*$", head)
    return int(length[1]) if length else 0


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
