"""The only way out of a sandbox, if it has one: an HTTP proxy to a list of hosts.

It listens on `127.0.0.1:EGRESS_PORT` inside the sandbox: the socket belongs to the sandbox's network namespace, and the
server accepts on it. It allows `CONNECT host:443` and plain `http://host/` requests on port 80, to exactly the
hosts on the list, and only at addresses that `AddressRules` lets pass. A connection carries one plain request and not a
byte more, so that nothing can follow it to another host. Inside TLS it sees nothing: a host on the list is trusted not
to relay. The operator's package index and registry are served beside it (see `mirror.py`).

`GET /refused-hosts?since=T` of the proxy itself, not of a host, answers with a JSON list of the hosts that it has
refused to this sandbox since then, by the machine's monotonic clock: many programs print nothing of a refusal.
"""

import asyncio
import contextlib
import json
import logging
import re
import socket
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from domain.egress import HOSTS_TOLD, REFUSED_HOSTS_VARIABLE, hosts_of, way_to_allow
from local.operator_network import OperatorNetwork
from local.sandbox.addresses import AddressRules, OffLimits, host_name
from local.sandbox.http_head import HEAD_BYTES, Header, Refused, parse_head, read_head, refuse
from local.sandbox.mirror import Mirror, PackageSource
from local.sandbox.splice import pipe, splice
from settings import HOST_NAME

log = logging.getLogger(__name__)

EGRESS_PORT = 3128
PIP_PORT, NPM_PORT = 3129, 3130
TLS_PORT, HTTP_PORT = 443, 80
REFUSED_HOSTS_PATH = "/refused-hosts"

CONNECT_SECONDS = 15.0
MAX_CONNECTIONS = 64
"""Serve this many connections of one sandbox at a time; more have to wait."""

_AUTHORITY = re.compile("[^/?#@]+:[0-9]{1,5}")
_HOP_BY_HOP = frozenset(b"connection keep-alive proxy-authorization proxy-connection te trailer upgrade expect".split())

Serve = Callable[[socket.socket, str], Awaitable[asyncio.Server]]
"""Accepts on a socket that listens inside the sandbox of this id."""


@dataclass(frozen=True)
class OutgoingRequest:
    """What a client inside requests of the proxy."""

    host: str
    port: int
    tunnel: bool
    """Whether it is a CONNECT: a raw connection, for TLS."""
    head: bytes = b""
    """For a plain request: the head to send to the host."""
    body_bytes: int = 0
    """For a plain request: the number of bytes after the head."""


@dataclass(frozen=True)
class _Refusals:
    """The last hosts that one sandbox was refused, with the times."""

    last: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=1000))

    def add(self, host: str) -> None:
        self.last.append((time.monotonic(), host))

    def answer(self, target: str) -> bytes:
        """The answer to a request for `REFUSED_HOSTS_PATH`."""
        _, _, query = target.partition("?since=")
        since = float(query) if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", query) else time.monotonic()
        hosts = list(dict.fromkeys(host for at, host in self.last if at >= since))
        body = json.dumps(hosts[:HOSTS_TOLD]).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        return head % len(body) + body


class EgressProxy:
    """Serves sandboxes: one list of hosts for all, and the operator's index and registry if there are any.

    `allow` may have names of sets, too. The private hosts of `rules` are on the list as well. Only tests give other
    ports.
    """

    def __init__(
        self,
        allow: Iterable[str],
        rules: AddressRules | None = None,
        *,
        pip: Mirror | None = None,
        npm: Mirror | None = None,
        tls_port: int = TLS_PORT,
        http_port: int = HTTP_PORT,
    ) -> None:
        self._rules = rules or AddressRules()
        self._pip, self._npm = pip, npm
        self._tls_port, self._http_port = tls_port, http_port
        self.allow = frozenset(map(host_name, hosts_of(allow))) | self._rules.private_hosts

    def listeners(self) -> dict[int, Serve]:
        """What to serve on which port of a sandbox's loopback."""
        mirrors = {mirror.port: mirror.serve for mirror in (self._pip, self._npm) if mirror is not None}
        return {EGRESS_PORT: self.serve, **mirrors}

    def environment(self) -> dict[str, str]:
        """The variables by which programs in a sandbox find this."""
        proxy = f"http://127.0.0.1:{EGRESS_PORT}"
        variables = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), proxy)
        variables |= dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1,::1")
        variables["NODE_USE_ENV_PROXY"] = "1"  # without it, Node's fetch knows of no proxy
        variables[REFUSED_HOSTS_VARIABLE] = f"{proxy}{REFUSED_HOSTS_PATH}"
        if self._pip is not None:
            variables |= {"PIP_INDEX_URL": self._pip.url, "UV_DEFAULT_INDEX": self._pip.url}
        if self._npm is not None:
            variables["npm_config_registry"] = self._npm.url
            # A lock file with this sandbox's addresses would be of no use elsewhere.
            variables["npm_config_omit_lockfile_registry_resolved"] = "true"
            variables["npm_config_audit"] = "false"  # it posts, and only reads are passed on
        return variables

    async def close(self) -> None:
        """Close the connections to the operator's index and registry."""
        for mirror in (self._pip, self._npm):
            if mirror is not None:
                await mirror.close()

    async def serve(self, listener: socket.socket, sandbox_id: str) -> asyncio.Server:
        """Accept on a socket that listens inside a sandbox."""
        slots, refusals = asyncio.Semaphore(MAX_CONNECTIONS), _Refusals()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async with slots:
                await self._serve_connection(reader, writer, sandbox_id, refusals)

        return await asyncio.start_server(accept, sock=listener, limit=HEAD_BYTES)

    async def _serve_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sandbox_id: str, refusals: _Refusals
    ) -> None:
        with contextlib.closing(writer):
            try:
                head = await read_head(reader)
                method, target, _ = parse_head(head)
                if method == "GET" and target.partition("?")[0] == REFUSED_HOSTS_PATH:
                    writer.write(refusals.answer(target))
                    await writer.drain()
                    return
                request = parse_request(head, self._tls_port, self._http_port)
                outer_reader, outer_writer = await self._connect(request, refusals)
            except Refused as refusal:
                log.warning("egress of sandbox %s refused: %s", sandbox_id, refusal)
                await refuse(writer, refusal)
                return
            except (TimeoutError, OSError, asyncio.IncompleteReadError):
                return
            with contextlib.closing(outer_writer):
                if request.tunnel:
                    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    await splice(reader, writer, outer_reader, outer_writer)
                else:
                    outer_writer.write(request.head)
                    body = asyncio.create_task(_send_body(reader, outer_writer, request.body_bytes))
                    answer = asyncio.create_task(pipe(outer_reader, writer))
                    await asyncio.wait([body, answer], return_when=asyncio.FIRST_COMPLETED)
                    for task in (body, answer):
                        task.cancel()
                    await asyncio.wait([body, answer])

    async def _connect(
        self, request: OutgoingRequest, refusals: _Refusals
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if request.host not in self.allow:
            refusals.add(request.host)
            raise Refused(
                f"This sandbox may not reach {request.host}: it is not on the list of allowed hosts."
                f" {way_to_allow(request.host)} A server started by hand takes `--allow`, too."
            )
        address = await self._rules.address_of(request.host)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await asyncio.open_connection(address, request.port)  # the checked address, not the name again
        except (TimeoutError, OSError) as error:
            raise Refused(f"{request.host} could not be reached: {str(error) or 'no answer in time'}", 502) from error


def egress_proxy(allow: Iterable[str], network: OperatorNetwork, off_limits: Iterable[tuple[str, str]]) -> EgressProxy:
    """What lets sandboxes out to a list of hosts and to what they may use of the operator's network."""
    rules = AddressRules(network.private_hosts, (OffLimits(*each) for each in off_limits))
    trust = ssl.create_default_context(cafile=network.ca_bundle)

    def mirror(setting: str, url: str | None, port: int) -> Mirror | None:
        return None if url is None else Mirror(PackageSource.of(setting, url), port, rules, trust)

    return EgressProxy(
        allow,
        rules,
        pip=mirror("SANDBOX_PIP_INDEX_URL", network.pip_index_url, PIP_PORT),
        npm=mirror("SANDBOX_NPM_REGISTRY", network.npm_registry, NPM_PORT),
    )


async def _send_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body_bytes: int) -> None:
    """Pass on the body, then wait until the client disconnects. Anything else that it sends is dropped."""
    await pipe(reader, writer, body_bytes, half_close=False)
    with contextlib.suppress(OSError):
        while await reader.read(HEAD_BYTES):
            pass


def parse_request(head: bytes, tls_port: int = TLS_PORT, http_port: int = HTTP_PORT) -> OutgoingRequest:
    """Parse the head of a proxy request strictly. Raises `Refused` for everything unusual."""
    method, target, headers = parse_head(head)
    if method == "CONNECT":
        if not _AUTHORITY.fullmatch(target):
            raise Refused("CONNECT needs a host and a port.", 400)
        host, port = _host_and_port(f"//{target}", tls_port)
        return OutgoingRequest(host, port, tunnel=True)
    if not target.lower().startswith("http://"):
        raise Refused("This is a proxy: a request has to name an http:// URL.", 400)
    host, port = _host_and_port(target, http_port)
    url = urlsplit(target)
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    end_to_end = [b"%s: %s" % each for each in headers if each[0] not in _HOP_BY_HOP | {b"host"}]
    request_line = f"{method} {path} HTTP/1.1".encode()
    origin_head = [request_line, b"host: " + host.encode(), *end_to_end, b"connection: close"]
    return OutgoingRequest(host, port, False, b"\r\n".join(origin_head) + b"\r\n\r\n", _body_bytes(headers))


def _host_and_port(target: str, only_port: int) -> tuple[str, int]:
    try:
        url = urlsplit(target)
        host, port = (url.hostname or "").lower().rstrip("."), url.port or only_port
    except ValueError as error:
        raise Refused("The target is not a host and a port.", 400) from error
    if "@" in url.netloc or not HOST_NAME.fullmatch(host):
        raise Refused("The target is not the name of a host.", 400)
    if port != only_port:
        raise Refused(f"This sandbox may not reach port {port} of {host}: only {only_port} is allowed here.")
    return host, port


def _body_bytes(headers: list[Header]) -> int:
    if any(name == b"transfer-encoding" for name, _ in headers):
        raise Refused("A request through this proxy needs a Content-Length.", 411)
    lengths = {value for name, value in headers if name == b"content-length"}
    if not lengths:
        return 0
    length = lengths.pop()
    if lengths or not re.fullmatch(rb"[0-9]{1,15}", length):
        raise Refused("The request has more than one Content-Length, or one that is not a number.", 400)
    return int(length)
