"""An HTTP proxy that leads to one server only: what a browser that shows untrusted pages may reach.

Blocking requests in the browser would miss redirects, frames and sockets of the page; here nothing gets past.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

_HEAD_BYTES = 64 * 1024
_CONNECT_SECONDS = 10
_REFUSED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_UNREACHABLE = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@asynccontextmanager
async def proxy_to(url: str) -> AsyncIterator[str]:
    """A proxy to the server of `url` for as long as the block runs; yields the proxy's own URL."""
    parts = urlsplit(url)
    allowed = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            connections.add(task)
            task.add_done_callback(connections.discard)
        # A broken connection is the browser's to notice.
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
    """One request per connection; a tunnel (TLS, WebSocket) is one, too."""
    head = await reader.readuntil(b"\r\n\r\n")
    method, target, rest = head.split(b" ", 2)
    tunnel = method == b"CONNECT"
    parts = urlsplit(b"//" + target if tunnel else target)
    if ((parts.hostname or b"").decode(), parts.port or (443 if tunnel else 80)) != allowed:
        writer.write(_REFUSED)
        await writer.drain()
        return
    host, port = allowed
    # Browsers know that *.localhost is this machine; the resolver here does not.
    address = "127.0.0.1" if host == "localhost" or host.endswith(".localhost") else host
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            server_reader, server_writer = await asyncio.open_connection(address, port, limit=_HEAD_BYTES)
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
        server_writer.write(_closing(method + b" " + path + b" " + rest))
        server_writer.write(await reader.readexactly(_body_length(head)))
        await server_writer.drain()
        writer.write(_closing(await server_reader.readuntil(b"\r\n\r\n")))
        await _copy(server_reader, writer)
    finally:
        server_writer.close()


def _closing(head: bytes) -> bytes:
    """The head of a message, saying that its connection ends with it: the next request is looked at again."""
    kept = re.sub(rb"(?im)^(?:proxy-)?(?:connection|keep-alive):[^\r\n]*\r\n", b"", head)
    return kept.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)


def _body_length(head: bytes) -> int:
    found = re.search(rb"(?im)^content-length:\s*(\d+)\s*$", head)
    return int(found[1]) if found else 0


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
