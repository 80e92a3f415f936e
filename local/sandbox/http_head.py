"""The heads of HTTP/1 requests that come from a sandbox: read strictly, and refused with a sentence."""

import asyncio
import contextlib
import re

HEAD_BYTES = 32 << 10
HEAD_SECONDS = 15.0

_METHOD = re.compile("[A-Z]{1,20}")
_TARGET = re.compile("[!-~]+")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*")

Header = tuple[bytes, bytes]
"""A header's name in lower case, and its value."""


class Refused(Exception):
    """A request that is not let out of the sandbox; the message says why, and the agent reads it."""

    def __init__(self, reason: str, status: int = 403) -> None:
        super().__init__(reason)
        self.status = status


async def read_head(reader: asyncio.StreamReader) -> bytes:
    """The next request's head. Raises `Refused` if it is too large, TimeoutError, `asyncio.IncompleteReadError`."""
    try:
        async with asyncio.timeout(HEAD_SECONDS):
            return await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise Refused("The request's head is too large.", 431) from error


def parse_head(head: bytes) -> tuple[str, str, list[Header]]:
    """The method, target and headers of a request. Raises `Refused` for everything unusual."""
    request_line, *lines = head[: -len(b"\r\n\r\n")].split(b"\r\n")
    try:
        method, target, version = request_line.decode("ascii").split(" ")
    except ValueError as error:
        raise Refused("This is not a request.", 400) from error
    if version not in ("HTTP/1.1", "HTTP/1.0") or not (_METHOD.fullmatch(method) and _TARGET.fullmatch(target)):
        raise Refused("This is not an HTTP/1 request.", 400)
    headers = []
    for line in lines:
        if not (header := _HEADER.fullmatch(line)):
            raise Refused("The request has a line that is not a header.", 400)
        headers.append((header[1].lower(), header[2]))
    return method, target, headers


async def refuse(writer: asyncio.StreamWriter, refusal: Refused) -> None:
    """Answer with the refusal. Its sentence is also the reason phrase: that is all that pip and npm print of it."""
    text = f"{refusal}\n".encode()
    phrase = " ".join(str(refusal).split()).encode("ascii", "replace")
    writer.write(
        b"HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        % (refusal.status, phrase, len(text))
        + text
    )
    with contextlib.suppress(OSError):
        await writer.drain()
