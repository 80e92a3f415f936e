"""A TCP proxy in front of one server that injects network faults.

It understands parts of three protocols: PostgreSQL, to lose the answer to a COMMIT; HTTP, to lose the answer to a
request that changes something, or to answer in place of S3; and HTTP/2 as Temporal's clients use it.
"""

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass

_COMMIT = b"Q\x00\x00\x00\x0bcommit\x00"
"""The end of a transaction as `db/transaction.py` sends it, in one piece."""

_CHANGES = (b"POST ", b"PUT ")
"""The first bytes of an HTTP request that changes or costs something."""

_HTTP2 = b"PRI * HTTP/2.0"
"""The first bytes of an HTTP/2 connection."""

_HTTP2_CHANGE_BYTES = 600
"""A piece of HTTP/2 of at least this many bytes is not a poll but the outcome of a task, a signal or a start."""

_PIECE_BYTES = 1 << 16


@dataclass(eq=False)
class _Connection:
    """A client's connection and the one to the server. `loses`: the next answer is dropped."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    loses: bool = False
    is_http2: bool = False

    def changes(self, data: bytes) -> bool:
        """Whether this piece of the client's data requests a change."""
        self.is_http2 = self.is_http2 or data.startswith(_HTTP2)
        if self.is_http2:
            return len(data) >= _HTTP2_CHANGE_BYTES
        return data.endswith(_COMMIT) or data.startswith(_CHANGES)

    def abort(self) -> None:
        for writer in (self.client, self.server):
            if writer is not None:
                writer.transport.abort()


class FaultProxy:
    """Passes bytes between its clients and `127.0.0.1:upstream`, with the faults that are switched on.

    `struck` counts the faults that hit a connection; one that hit none is not counted.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.port = 0
        self.delay_seconds = 0.0
        """Delay each piece of data by this many seconds, in both directions."""
        self.refusal: int | None = None
        """Answer every request with this HTTP status instead of passing it on."""
        self.is_down = False
        """End every connection at once, like a server that does not run. `heal` does not change it."""
        self.answers_to_lose = 0
        """Pass on this many PostgreSQL COMMITs, HTTP POSTs and PUTs, or Temporal calls with a payload, but lose their
        answers: the connection ends instead."""
        self.struck: Counter[str] = Counter()
        self._open_ended = asyncio.Event()
        self._open_ended.set()
        self._connections: dict[asyncio.Task[None], _Connection] = {}
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End every connection and stop listening."""
        if self._server is not None:
            self._server.close()
        self.is_down = False
        self.heal()
        self._abort()
        if self._connections:
            await asyncio.wait(list(self._connections))

    def cut(self) -> None:
        """End every connection now, even in the middle of a request. New connections are served."""
        self.struck["cut"] += len(self._connections)
        self._abort()

    def blackhole(self) -> None:
        """From now on hold back all data, without ending connections."""
        self._open_ended.clear()

    def refuse(self, status: int) -> None:
        """From now on answer every HTTP request with this status, and end the open connections."""
        self.refusal = status
        self._abort()

    def take_down(self) -> None:
        """From now on act like a server that does not run, until `is_down` is set back."""
        self.is_down = True
        self._abort()

    def heal(self) -> None:
        """Switch off all faults but `is_down`. Data that a black hole held back arrives now."""
        self.delay_seconds, self.refusal, self.answers_to_lose = 0.0, None, 0
        self._open_ended.set()

    def _abort(self) -> None:
        for connection in self._connections.values():
            connection.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection = self._connections[task] = _Connection(writer)
        try:
            if self.is_down:
                return
            if self.refusal is not None:
                await self._refuse_request(reader, writer, self.refusal)
                return
            answers, connection.server = await asyncio.open_connection("127.0.0.1", self.upstream)
            # If one end closes, both end: nothing here half-closes a connection.
            pumps = [
                asyncio.create_task(self._forward_requests(reader, connection)),
                asyncio.create_task(self._forward_answers(answers, connection)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the server is down, and the connection with it
        finally:
            self._connections.pop(task).abort()

    async def _forward_requests(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        """Pass on the client's data."""
        assert connection.server is not None
        while data := await self._next(reader):
            if connection.changes(data) and self.answers_to_lose > 0:
                self.answers_to_lose -= 1
                connection.loses = True
            connection.server.write(data)
            await connection.server.drain()

    async def _forward_answers(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        """Pass on the server's answers."""
        while data := await self._next(reader):
            if connection.loses:
                self.struck["answer lost"] += 1
                return
            connection.client.write(data)
            await connection.client.drain()

    async def _next(self, reader: asyncio.StreamReader) -> bytes:
        try:
            data = await reader.read(_PIECE_BYTES)
        except OSError:
            return b""
        if data and self.delay_seconds:
            self.struck["delay"] += 1
            await asyncio.sleep(self.delay_seconds)
        if data and not self._open_ended.is_set():
            self.struck["blackhole"] += 1
            await self._open_ended.wait()
        return data

    # ---- answers of the proxy itself

    async def _refuse_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: int) -> None:
        """Read the request, so that the client gets to read the answer, and refuse it as S3 does."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.struck[str(status)] += 1
        code, phrase = ("AccessDenied", "Forbidden") if status == 403 else ("InternalError", "Internal Server Error")
        body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>A fault test refuses.</Message></Error>'
        if head.startswith(b"HEAD"):
            body = ""
        answer = f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{answer}Connection: close\r\n\r\n{body}".encode())
        await writer.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while await reader.read(_PIECE_BYTES):
                    pass
