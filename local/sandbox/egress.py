"""The only way out of a sandbox, when there is one: an HTTP proxy that knows a list of hosts.

Inside the sandbox it listens on `127.0.0.1:EGRESS_PORT`; the listening socket lives in the sandbox's network namespace,
this end of it in the server. It allows `CONNECT host:443` and plain `http://host/` requests on port 80, to exactly the
hosts on the list and only at public addresses. A connection carries one plain request and not a byte more, so that
nothing can follow it to another host. Inside TLS it sees nothing: a host on the list is trusted not to relay.
"""

import asyncio
import contextlib
import ipaddress
import logging
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from local.sandbox.splice import pipe, splice

log = logging.getLogger(__name__)

EGRESS_PORT = 3128
PACKAGE_REGISTRIES = ("pypi.org", "files.pythonhosted.org", "registry.npmjs.org")
TLS_PORT, HTTP_PORT = 443, 80

HEAD_BYTES = 32 << 10
HEAD_SECONDS = 15.0
CONNECT_SECONDS = 15.0
MAX_CONNECTIONS = 64
"""Of one sandbox, at a time."""

_HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?")
_METHOD = re.compile("[A-Z]{1,20}")
_TARGET = re.compile("[!-~]+")
_AUTHORITY = re.compile("[^/?#@]+:[0-9]{1,5}")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_HOP_BY_HOP = frozenset(b"connection keep-alive proxy-authorization proxy-connection te trailer upgrade expect".split())


class Refused(Exception):
    """A request that is not let out; the message says why."""

    def __init__(self, reason: str, status: str = "403 Forbidden") -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class OutgoingRequest:
    """What a client inside asked the proxy for."""

    host: str
    port: int
    tunnel: bool
    """CONNECT: a raw connection, for TLS."""
    head: bytes = b""
    """For a plain request: its head as the host gets it."""
    body_bytes: int = 0
    """For a plain request: how much follows the head."""


class EgressProxy:
    """Serves any number of sandboxes with one list of hosts.

    Only tests have a reason for `also_allowed`, addresses that are reachable though not public, and other ports.
    """

    def __init__(
        self,
        allow: Iterable[str] = PACKAGE_REGISTRIES,
        *,
        also_allowed: Iterable[str] = (),
        tls_port: int = TLS_PORT,
        http_port: int = HTTP_PORT,
    ) -> None:
        self.allow = frozenset(host.lower().rstrip(".") for host in allow)
        self._tls_port, self._http_port = tls_port, http_port
        self._also_allowed = frozenset(ipaddress.ip_address(address) for address in also_allowed)

    async def serve(self, listener: socket.socket, sandbox_id: str) -> asyncio.Server:
        """Accept on a socket that listens inside a sandbox."""
        slots = asyncio.Semaphore(MAX_CONNECTIONS)

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async with slots:
                await self._serve_connection(reader, writer, sandbox_id)

        return await asyncio.start_server(accept, sock=listener, limit=HEAD_BYTES)

    async def _serve_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sandbox_id: str
    ) -> None:
        with contextlib.closing(writer):
            try:
                try:
                    async with asyncio.timeout(HEAD_SECONDS):
                        head = await reader.readuntil(b"\r\n\r\n")
                except asyncio.LimitOverrunError as error:
                    raise Refused("the request's head is too large", "431 Request Header Fields Too Large") from error
                request = parse_request(head, self._tls_port, self._http_port)
                outer_reader, outer_writer = await self._connect(request)
            except Refused as refusal:
                log.warning("egress of sandbox %s refused: %s", sandbox_id, refusal)
                text = f"{refusal}\n".encode()
                writer.write(
                    f"HTTP/1.1 {refusal.status}\r\nContent-Type: text/plain; charset=utf-8\r\n"
                    f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n".encode()
                    + text
                )
                with contextlib.suppress(OSError):
                    await writer.drain()
                return
            except (TimeoutError, OSError, asyncio.IncompleteReadError):
                return
            with contextlib.closing(outer_writer):
                if request.tunnel:
                    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    await splice(reader, writer, outer_reader, outer_writer)
                else:
                    outer_writer.write(request.head)
                    sending = asyncio.create_task(_send_body(reader, outer_writer, request.body_bytes))
                    answering = asyncio.create_task(pipe(outer_reader, writer))
                    await asyncio.wait([sending, answering], return_when=asyncio.FIRST_COMPLETED)
                    for task in (sending, answering):
                        task.cancel()
                    await asyncio.wait([sending, answering])

    async def _connect(self, request: OutgoingRequest) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if request.host not in self.allow:
            raise Refused(f"This sandbox may not reach {request.host}: it is not on the list of allowed hosts.")
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                found = await asyncio.get_running_loop().getaddrinfo(
                    request.host, request.port, type=socket.SOCK_STREAM
                )
                addresses = [str(entry[4][0]) for entry in found]
                address = next((a for a in addresses if self._may_reach(a)), None)
                if address is None:
                    raise Refused(f"This sandbox may not reach {request.host}: it has no public address.")
                return await asyncio.open_connection(address, request.port)  # the checked address, not the name again
        except (TimeoutError, OSError) as error:
            raise Refused(f"{request.host} could not be reached: {error}", "502 Bad Gateway") from error

    def _may_reach(self, address: str) -> bool:
        return is_public(address) or ipaddress.ip_address(address) in self._also_allowed


async def _send_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body_bytes: int) -> None:
    """Pass on the body; then only wait for the client to go away. What else it sends is dropped."""
    await pipe(reader, writer, body_bytes, half_close=False)
    with contextlib.suppress(OSError):
        while await reader.read(HEAD_BYTES):
            pass


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet, looking through IPv6 forms that carry an IPv4 address."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:  # such as an IPv6 address with a scope, which is never public
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found in ipaddress.IPv6Network("64:ff9b::/96"):
            found = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        elif carried := found.ipv4_mapped or found.sixtofour:
            found = carried
        elif found.teredo:
            return False
    return found.is_global and not (found.is_multicast or found.is_reserved or found.is_unspecified)


def parse_request(head: bytes, tls_port: int = TLS_PORT, http_port: int = HTTP_PORT) -> OutgoingRequest:
    """Read the head of a proxy request, strictly. Raises `Refused` for everything unusual."""
    request_line, *lines = head[: -len(b"\r\n\r\n")].split(b"\r\n")
    try:
        method, target, version = request_line.decode("ascii").split(" ")
    except ValueError as error:
        raise Refused("not a request", "400 Bad Request") from error
    if version not in ("HTTP/1.1", "HTTP/1.0") or not (_METHOD.fullmatch(method) and _TARGET.fullmatch(target)):
        raise Refused("not an HTTP/1 request", "400 Bad Request")
    headers = []
    for line in lines:
        if not (header := _HEADER.fullmatch(line)):
            raise Refused("a header that is none", "400 Bad Request")
        headers.append((header[1].lower(), header[2]))
    if method == "CONNECT":
        if not _AUTHORITY.fullmatch(target):
            raise Refused("CONNECT needs a host and a port", "400 Bad Request")
        host, port = _host_and_port(f"//{target}", tls_port)
        return OutgoingRequest(host, port, tunnel=True)
    if not target.lower().startswith("http://"):
        raise Refused("This is a proxy: the request has to name a http:// URL.", "400 Bad Request")
    host, port = _host_and_port(target, http_port)
    url = urlsplit(target)
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    kept = [b"%s: %s" % each for each in headers if each[0] not in _HOP_BY_HOP | {b"host"}]
    origin_head = [f"{method} {path} HTTP/1.1".encode(), b"host: " + host.encode(), *kept, b"connection: close"]
    return OutgoingRequest(host, port, False, b"\r\n".join(origin_head) + b"\r\n\r\n", _body_bytes(headers))


def _host_and_port(target: str, only_port: int) -> tuple[str, int]:
    try:
        url = urlsplit(target)
        host, port = (url.hostname or "").lower().rstrip("."), url.port or only_port
    except ValueError as error:
        raise Refused("not a host and port", "400 Bad Request") from error
    if "@" in url.netloc or not _HOST_NAME.fullmatch(host):
        raise Refused("not the name of a host", "400 Bad Request")
    if port != only_port:
        raise Refused(f"This sandbox may not reach port {port} of {host}: only {only_port} is allowed here.")
    return host, port


def _body_bytes(headers: list[tuple[bytes, bytes]]) -> int:
    if any(name == b"transfer-encoding" for name, _ in headers):
        raise Refused("A request through this proxy needs a Content-Length.", "411 Length Required")
    lengths = {value for name, value in headers if name == b"content-length"}
    if not lengths:
        return 0
    length = lengths.pop()
    if lengths or not re.fullmatch(rb"[0-9]{1,15}", length):
        raise Refused("more than one Content-Length, or none that counts", "400 Bad Request")
    return int(length)
