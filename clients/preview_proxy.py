"""An HTTP proxy that leads to one server only, for a browser that shows untrusted pages.

Blocking requests in the browser would miss redirects, frames and sockets of the page. Nothing gets past a proxy.

The proxy also adds the token of a private sandbox to each request. The browser does not know it, so no page can read
it or take it to another server. To add it to requests over TLS, the proxy ends the browser's TLS with a certificate of
its own and checks the server's certificate itself.
"""

import asyncio
import contextlib
import datetime
import functools
import re
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from clients.loopback import address_of
from domain.page_view import origin_of
from domain.traffic import TRAFFIC_HEADER, Upstream

_HEAD_BYTES = 64 * 1024
_CONNECT_SECONDS = 10
_REFUSED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_UNREACHABLE = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@dataclass(frozen=True)
class _Target:
    """The one server."""

    scheme: str
    host: str
    port: int
    token: bytes | None
    tls: ssl.SSLContext | None
    """Checks the server's certificate, if the proxy speaks TLS with it."""

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(_CONNECT_SECONDS):
            if self.tls is None:
                return await asyncio.open_connection(address_of(self.host), self.port, limit=_HEAD_BYTES)
            return await asyncio.open_connection(
                address_of(self.host), self.port, limit=_HEAD_BYTES, ssl=self.tls, server_hostname=self.host
            )


@asynccontextmanager
async def proxy_to(upstream: Upstream) -> AsyncIterator[str]:
    """Run a proxy to the server during the block; yields the proxy's own URL.

    The browser has to accept the proxy's certificate if the server is private and speaks TLS.
    """
    scheme, host, port = origin_of(upstream.url)
    token = upstream.token.encode() if upstream.token is not None else None
    tls = ssl.create_default_context() if token is not None and scheme == "https" else None
    target = _Target(scheme, host, port, token, tls)
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            connections.add(task)
            task.add_done_callback(connections.discard)
        # The browser notices a broken connection by itself.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            await _serve(reader, writer, target)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=_HEAD_BYTES)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for connection in list(connections):
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: _Target) -> None:
    """Serve one request of a connection; a tunnel to a public server (TLS, WebSocket) counts as one."""
    head = await reader.readuntil(b"\r\n\r\n")
    method, address, _ = head.split(b" ", 2)
    tunnel = method == b"CONNECT"
    parts = urlsplit(b"//" + address if tunnel else address)
    asked = ((parts.hostname or b"").decode(), parts.port or (443 if tunnel else 80))
    # Without a tunnel it would go to a server that speaks TLS in the clear.
    if asked != (target.host, target.port) or (target.tls is not None and not tunnel):
        writer.write(_REFUSED)
        await writer.drain()
        return
    try:
        server_reader, server_writer = await target.connect()
    except (OSError, TimeoutError):
        writer.write(_UNREACHABLE)
        await writer.drain()
        return
    try:
        if tunnel:
            writer.write(_CONNECTED)
            if target.token is None:
                await asyncio.gather(_copy(reader, server_writer), _copy(server_reader, writer))
                return
            if target.tls is not None:
                await writer.start_tls(_own_certificate())
            head = await reader.readuntil(b"\r\n\r\n")
        else:
            path = (parts.path or b"/") + (b"?" + parts.query if parts.query else b"")
            head = head.replace(address, path, 1)
        await _exchange(_with_token(head, target.token), reader, writer, server_reader, server_writer)
    finally:
        server_writer.close()


async def _exchange(
    head: bytes,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    server_reader: asyncio.StreamReader,
    server_writer: asyncio.StreamWriter,
) -> None:
    """Pass one request on, and its answer back. A WebSocket lasts until one side ends it."""
    if re.search(rb"(?im)^upgrade:", head):
        server_writer.write(head)
        copies = [asyncio.create_task(_copy(reader, server_writer)), asyncio.create_task(_copy(server_reader, writer))]
        try:
            await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for copy in copies:
                copy.cancel()
            await asyncio.gather(*copies, return_exceptions=True)
        return
    server_writer.write(_with_connection_close(head))
    server_writer.write(await reader.readexactly(_body_length(head)))
    await server_writer.drain()
    writer.write(_with_connection_close(await server_reader.readuntil(b"\r\n\r\n")))
    await _copy(server_reader, writer)


def _with_token(head: bytes, token: bytes | None) -> bytes:
    """The head of a request with the token, whatever the page has put into its header."""
    if token is None:
        return head
    name = TRAFFIC_HEADER.encode()
    rest = re.sub(rb"(?im)^" + name + rb"[ \t]*:[^\r\n]*\r\n", b"", head)
    return rest.replace(b"\r\n", b"\r\n" + name + b": " + token + b"\r\n", 1)


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
    if writer.can_write_eof():
        with contextlib.suppress(OSError):
            writer.write_eof()


@functools.cache
def _own_certificate() -> ssl.SSLContext:
    """A certificate that only this process uses. Its key is in a file for no longer than a moment."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Cofounder's browser")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "certificate.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context.load_cert_chain(file)
    return context
