"""Servers inside a sandbox, reached from outside as `http://{port}-{sandbox}.{domain}`.

A connection belongs to the sandbox that its first request names until it closes. Bytes are passed on unread, so
keep-alive, server-sent events and WebSockets need nothing more. A later request on the connection that names another
sandbox still goes to the first one. Browsers and HTTP clients keep connections apart by host; a reverse proxy in front
of this must do so, too.

The servers of a private sandbox get one request of a connection: see `private_request.py`.
"""

import asyncio
import contextlib
import json
import logging
import re
import socket

from local.sandbox.guest_link import GuestLost
from local.sandbox.http_head import Refused
from local.sandbox.private_request import BadAnswer, Forbidden, PrivateRequest, exchange, private_request
from local.sandbox.registry import Registry, TooManyRunning
from local.sandbox.sandbox import NOT_RUNNING, BootFailed
from local.sandbox.splice import splice

log = logging.getLogger(__name__)

HEAD_BYTES = 64 << 10
HEAD_SECONDS = 30.0

_HOST_LINE = re.compile(rb"(?im)^host[ \t]*:[ \t]*([^\r\n]*?)[ \t]*\r?$")
_HOST = re.compile(r"(?i)(\d{1,5})-(i[0-9a-f]{20})(?:[.:].*)?")


class Unreachable(Exception):
    """Answer the request with 502 and this message."""


class BadHead(Exception):
    """Answer the request with 400 and this message."""


class PortProxy:
    """Accepts on one TCP port for all sandboxes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self, listener: socket.socket) -> None:
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=HEAD_BYTES)

    async def close(self) -> None:
        """Stop accepting, and close every connection."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            try:
                async with asyncio.timeout(HEAD_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                port, sandbox_id = addressed(head)
                request = self._checked(head, sandbox_id)
                inner_reader, inner_writer = await self._connect(port, sandbox_id)
            except (asyncio.IncompleteReadError, TimeoutError):
                return
            except (asyncio.LimitOverrunError, BadHead, Refused) as error:
                await _answer(writer, "400 Bad Request", 400, str(error))
                return
            except Forbidden as error:
                await _answer(writer, "403 Forbidden", 403, str(error), sandboxId=sandbox_id)
                return
            except Unreachable as error:
                await _answer(writer, "502 Bad Gateway", 502, str(error))
                return
            except TooManyRunning as error:
                await _answer(writer, "429 Too Many Requests", 429, str(error))
                return
            with contextlib.closing(inner_writer):
                if request is None:
                    inner_writer.write(head)
                    await splice(reader, writer, inner_reader, inner_writer)
                    return
                try:
                    await exchange(request, reader, writer, inner_reader, inner_writer)
                except BadAnswer as error:
                    await _answer(writer, "502 Bad Gateway", 502, str(error))

    def _checked(self, head: bytes, sandbox_id: str) -> PrivateRequest | None:
        """The request, if the sandbox is private; None if it is public. Raises `Forbidden`, `Refused`, `Unreachable`.

        A paused sandbox does not run again for a request without its token.
        """
        sandbox = self._registry.sandboxes.get(sandbox_id)
        if sandbox is None:
            raise Unreachable(NOT_RUNNING)
        token = sandbox.record.traffic_token
        return None if token is None else private_request(head, token)

    async def _connect(self, port: int, sandbox_id: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sandbox = self._registry.sandboxes.get(sandbox_id)
        if sandbox is None:
            raise Unreachable(NOT_RUNNING)
        try:
            await self._registry.resume_for_traffic(sandbox)
            if not sandbox.running:
                raise Unreachable(NOT_RUNNING)
            connected = await sandbox.call("connect", port=port)
            return await asyncio.open_connection(sock=socket.socket(fileno=connected.descriptors[0]))
        except GuestLost as error:
            raise Unreachable(NOT_RUNNING) from error
        except (BootFailed, OSError, IndexError) as error:
            raise Unreachable(getattr(error, "strerror", None) or str(error)) from error


def addressed(head: bytes) -> tuple[int, str]:
    """The port and sandbox that the one Host header of a request names. Raises `BadHead`."""
    hosts = _HOST_LINE.findall(head)
    if len(hosts) != 1:
        raise BadHead("a request has exactly one Host header")
    match = _HOST.fullmatch(hosts[0].decode("latin-1"))
    if match is None:
        raise BadHead("the host is not {port}-{sandbox}.{domain}")
    port = int(match[1])
    if not 0 < port < 1 << 16:
        raise BadHead(f"{port} is not a port")
    return port, match[2].lower()


async def _answer(writer: asyncio.StreamWriter, status: str, code: int, message: str, **fields: str) -> None:
    body = json.dumps({**fields, "message": message, "code": code}).encode()
    head = ("HTTP/1.1 " + status, "Content-Type: application/json", f"Content-Length: {len(body)}", "Connection: close")
    writer.write("\r\n".join((*head, "", "")).encode() + body)
    await writer.drain()
