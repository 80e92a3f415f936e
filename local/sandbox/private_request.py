"""One HTTP/1 request to a server in a private sandbox, and its answer.

Each request has to carry the sandbox's token, which the server must not see. So a connection carries one request: a
server that kept it open could read the token in the head of the next one.
"""

import asyncio
import contextlib
import hmac
from dataclasses import dataclass

from domain.traffic import TRAFFIC_HEADER
from local.sandbox.http_head import Header, Refused, parse_head
from local.sandbox.splice import pipe, splice

_TOKEN = TRAFFIC_HEADER.encode()
_HEAD_BYTES = 64 << 10
_CONNECTION = (b"connection", b"keep-alive", b"proxy-connection")


class Forbidden(Exception):
    """The request does not carry the sandbox's token. The message is E2B's; answer with 403."""


class BadAnswer(Exception):
    """The server's answer is not one of HTTP/1."""


@dataclass(frozen=True)
class PrivateRequest:
    """A request that carried the token."""

    head: bytes
    """What the server gets: without the token."""
    body_bytes: int | None
    """None if the body is chunked."""
    upgrades: bool
    """Whether it asks to speak another protocol, such as WebSocket."""


def private_request(head: bytes, token: str) -> PrivateRequest:
    """Check the head of a request to a private sandbox, and take the token out of it.

    Raises:
        Forbidden: the token is missing or wrong.
        Refused: the head is unusual, or where the body ends is unclear.
    """
    _, _, headers = parse_head(head)
    tokens = _values(headers, _TOKEN)
    secured = "Sandbox is secured with traffic access token."
    if not any(tokens):
        raise Forbidden(f"{secured} Token header '{TRAFFIC_HEADER}' is missing")
    if len(tokens) != 1 or not hmac.compare_digest(tokens[0], token.encode()):
        raise Forbidden(f"{secured} Provided token in header '{TRAFFIC_HEADER}' is invalid")
    connection = b",".join(_values(headers, b"connection")).lower()
    upgrades = bool(_values(headers, b"upgrade")) and b"upgrade" in {each.strip() for each in connection.split(b",")}
    return PrivateRequest(
        head=_without(head, _TOKEN) if upgrades else _closing(_without(head, _TOKEN)),
        body_bytes=_body_bytes(headers),
        upgrades=upgrades,
    )


async def exchange(
    request: PrivateRequest,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    server_reader: asyncio.StreamReader,
    server_writer: asyncio.StreamWriter,
) -> None:
    """Pass a request on to the server, and its answer back. After an upgrade, join the connections.

    Raises:
        BadAnswer: nothing has been passed back.
    """
    server_writer.write(request.head)
    sending = asyncio.create_task(_send_body(request, reader, server_writer))
    try:
        switched = await _pass_answer(request, server_reader, writer)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    if switched:
        await splice(reader, writer, server_reader, server_writer)


async def _send_body(request: PrivateRequest, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
    """Pass the body on, and nothing that follows it. If the client leaves, the server is told."""
    with contextlib.suppress(OSError):
        try:
            if request.body_bytes is None:
                await _pass_chunks(reader, server)
            else:
                await pipe(reader, server, request.body_bytes, half_close=False)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            server.close()
            return
        if not request.upgrades and not await reader.read(1) and server.can_write_eof():
            server.write_eof()


async def _pass_chunks(reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
    """Pass a chunked body on, to its end. Raises ValueError if it is malformed."""
    while True:
        line = await reader.readuntil(b"\r\n")
        size = line.partition(b";")[0].strip()
        if not size or size.strip(b"0123456789abcdefABCDEF"):
            raise ValueError("not the size of a chunk")
        server.write(line)
        if int(size, 16) == 0:
            break
        await pipe(reader, server, int(size, 16), half_close=False)
        server.write(await reader.readexactly(2))
        await server.drain()
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        if not line.lower().startswith(_TOKEN):
            server.write(line)
    server.write(line)
    await server.drain()


async def _pass_answer(request: PrivateRequest, server: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Pass the answer back. Returns whether the protocol has changed."""
    while True:
        head = await _read_answer_head(server)
        status = int(head[9:12])
        if status == 101:
            if not request.upgrades:
                raise BadAnswer("the server changes the protocol, which the request did not ask for")
            writer.write(head)
            return True
        if status >= 200:
            writer.write(_closing(head))
            await pipe(server, writer)
            return False
        writer.write(head)


async def _read_answer_head(server: asyncio.StreamReader) -> bytes:
    """The head of an answer. Its lines may end without a carriage return, as some servers do it."""
    head = b""
    try:
        while not head.endswith((b"\r\n\r\n", b"\n\n")):
            line = await server.readuntil(b"\n")
            head += line
            if len(head) > _HEAD_BYTES:
                raise BadAnswer("the head of the server's answer is too large")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise BadAnswer("the server closed the connection without an answer") from error
    if not head.startswith(b"HTTP/1.") or not head[9:12].isdigit():
        raise BadAnswer("the server's answer is not one of HTTP/1")
    return head


def _body_bytes(headers: list[Header]) -> int | None:
    encodings, lengths = _values(headers, b"transfer-encoding"), _values(headers, b"content-length")
    if encodings:
        if lengths or [each.lower() for each in encodings] != [b"chunked"]:
            raise Refused("Where the request's body ends is unclear.", 400)
        return None
    if not lengths:
        return 0
    if len(lengths) != 1 or not lengths[0].isdigit() or len(lengths[0]) > 18:
        raise Refused("Where the request's body ends is unclear.", 400)
    return int(lengths[0])


def _values(headers: list[Header], name: bytes) -> list[bytes]:
    return [value for each, value in headers if each == name]


def _without(head: bytes, *names: bytes) -> bytes:
    lines = head.splitlines(keepends=True)
    return lines[0] + b"".join(line for line in lines[1:] if line.partition(b":")[0].strip().lower() not in names)


def _closing(head: bytes) -> bytes:
    first, *rest = _without(head, *_CONNECTION).splitlines(keepends=True)
    return first + b"Connection: close\r\n" + b"".join(rest)
