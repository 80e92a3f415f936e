"""Reading multipart/form-data as it arrives, so that an upload goes to its file without being held or spooled."""

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
    """One part. Its `chunks` have to be read before the next part is asked for; what is left over is skipped."""

    def __init__(self, name: str, filename: str | None, chunks: AsyncIterator[bytes]) -> None:
        self.name = name
        self.filename = filename
        self.chunks = chunks


def boundary_of(content_type: str) -> bytes:
    """Raises `MalformedMultipart` when there is none."""
    found = _BOUNDARY.match(content_type)
    boundary = (found[1] or found[2]).encode() if found else b""
    if not 0 < len(boundary) <= MAX_BOUNDARY:
        raise MalformedMultipart("multipart without a boundary")
    return boundary


async def read_parts(body: AsyncIterator[bytes], boundary: bytes) -> AsyncIterator[Part]:
    """The parts in their order. Raises `MalformedMultipart`, also while a part's chunks are read."""
    reader = _Reader(body)
    delimiter = b"\r\n--" + boundary
    async for _ in reader.until(delimiter):
        pass  # what precedes the first part means nothing
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
        self._buffer = b"\r\n"  # the first boundary may be without the line end that precedes the others

    async def _more(self) -> None:
        try:
            self._buffer += await anext(self._body)
        except StopAsyncIteration:
            raise MalformedMultipart("the body ends before its last boundary") from None

    async def exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._more()
        found, self._buffer = self._buffer[:count], self._buffer[count:]
        return found

    async def head(self) -> bytes:
        """A part's headers; the empty line after them is consumed."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MAX_HEADER_BYTES:
                raise MalformedMultipart("a part's headers are too large")
            await self._more()
        found, self._buffer = self._buffer[:end], self._buffer[end + len(b"\r\n\r\n") :]
        return found

    async def until(self, delimiter: bytes) -> AsyncIterator[bytes]:
        """What precedes the delimiter, which is consumed."""
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
            found = {key.lower(): _unescape(value) for key, value in parameters.items()}
            return found.get("name", ""), found.get("filename")
    raise MalformedMultipart("a part without Content-Disposition")


def _unescape(value: str) -> str:
    """Undo what HTML forms and httpx do to quotes, backslashes and control characters."""
    return _ESCAPED.sub(lambda found: found[1] or chr(int(found[2], 16)), value)
