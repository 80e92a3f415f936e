"""Parse multipart/form-data as it arrives, so that an upload goes straight to its file."""

import re
from collections.abc import AsyncIterator

MAX_BOUNDARY = 200
MAX_HEADER_BYTES = 16 << 10

_BOUNDARY = re.compile(r"""(?i)multipart/form-data\s*;.*?\bboundary=(?:"([^"]+)"|([^\s;,"]+))""")
_PARAMETER = re.compile(r'(?i)\b(filename|name)="((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)|%(22|0[0-9A-Fa-f]|1[0-9A-Fa-f])")


class MalformedMultipart(ValueError):
    """The body is not what its content type says."""


class Part:
    """One part. Read its `chunks` before you ask for the next part, which skips the rest of them."""

    def __init__(self, name: str, filename: str | None, chunks: AsyncIterator[bytes]) -> None:
        self.name = name
        self.filename = filename
        self.chunks = chunks


def boundary_of(content_type: str) -> bytes:
    """The boundary that a content type names. Raises `MalformedMultipart` if there is none."""
    match = _BOUNDARY.match(content_type)
    boundary = (match[1] or match[2]).encode() if match else b""
    if not 0 < len(boundary) <= MAX_BOUNDARY:
        raise MalformedMultipart("multipart without a boundary")
    return boundary


async def read_parts(body: AsyncIterator[bytes], boundary: bytes) -> AsyncIterator[Part]:
    """The parts in order. Raises `MalformedMultipart`, also while you read a part's chunks."""
    reader = _Reader(body)
    delimiter = b"\r\n--" + boundary
    async for _ in reader.until(delimiter):
        pass  # text before the first part has no meaning
    while True:
        mark = await reader.exactly(2)
        if mark == b"--":
            return
        if mark != b"\r\n":
            raise MalformedMultipart("a boundary that does not end its line")
        name, filename = _disposition(await reader.head())
        chunks = reader.until(delimiter)
        yield Part(name, filename, chunks)
        async for _ in chunks:
            pass


class _Reader:
    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self._buffer = b"\r\n"  # the first boundary may lack the line end that precedes the others

    async def _more(self) -> None:
        try:
            self._buffer += await anext(self._body)
        except StopAsyncIteration:
            raise MalformedMultipart("the body ends before its last boundary") from None

    async def exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._more()
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    async def head(self) -> bytes:
        """A part's headers. Consumes the empty line after them."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MAX_HEADER_BYTES:
                raise MalformedMultipart("a part's headers are too large")
            await self._more()
        head, self._buffer = self._buffer[:end], self._buffer[end + len(b"\r\n\r\n") :]
        return head

    async def until(self, delimiter: bytes) -> AsyncIterator[bytes]:
        """The data before the delimiter. Consumes both."""
        while (end := self._buffer.find(delimiter)) < 0:
            safe = len(self._buffer) - len(delimiter) + 1
            if safe > 0:
                chunk, self._buffer = self._buffer[:safe], self._buffer[safe:]
                yield chunk
            await self._more()
        chunk, self._buffer = self._buffer[:end], self._buffer[end + len(delimiter) :]
        if chunk:
            yield chunk


def _disposition(head: bytes) -> tuple[str, str | None]:
    for line in head.split(b"\r\n"):
        header, _, value = line.partition(b":")
        if header.strip().lower() == b"content-disposition":
            try:
                parameters = dict(_PARAMETER.findall(value.decode()))
            except UnicodeDecodeError as error:
                raise MalformedMultipart("a part's name is not UTF-8") from error
            unescaped = {key.lower(): _unescape(value) for key, value in parameters.items()}
            return unescaped.get("name", ""), unescaped.get("filename")
    raise MalformedMultipart("a part without Content-Disposition")


def _unescape(value: str) -> str:
    """Undo the escapes that HTML forms and httpx use for quotes, backslashes and control characters."""
    return _ESCAPED.sub(lambda match: match[1] or chr(int(match[2], 16)), value)
