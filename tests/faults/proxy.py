"""A TCP proxy in front of one server, with the faults that a network has.

It knows three protocols a little: PostgreSQL's, to lose the answer to a COMMIT, HTTP's, to lose the answer to what
changes something, or to answer in S3's place, and HTTP/2's as Temporal's clients speak it.
"""

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass

_COMMIT = b"Q\x00\x00\x00\x0cCOMMIT;\x00"
"""A transaction's end as asyncpg sends it, in one piece."""

_CHANGES = (b"POST ", b"PUT ")
"""What begins an HTTP request that changes something, or costs something."""

_HTTP2 = b"PRI * HTTP/2.0"
"""How a connection begins that speaks HTTP/2."""

_HTTP2_CHANGE_BYTES = 600
"""A piece of HTTP/2 that is larger than a poll is the outcome of a task, a signal or a start."""

_PIECE_BYTES = 1 << 16


@dataclass(eq=False)
class _Connection:
    """A client's connection and the one behind it. `loses`: the next answer does not arrive."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    loses: bool = False
    is_http2: bool = False

    def changes(self, data: bytes) -> bool:
        """Whether a piece of what the client sends asks for a change."""
        self.is_http2 = self.is_http2 or data.startswith(_HTTP2)
        if self.is_http2:
            return len(data) >= _HTTP2_CHANGE_BYTES
        return data.endswith(_COMMIT) or data.startswith(_CHANGES)

    def abort(self) -> None:
        for writer in (self.client, self.server):
            if writer is not None:
                writer.transport.abort()


class FaultProxy:
    """Passes bytes between its clients and `127.0.0.1:upstream`, unless it is told otherwise.

    `struck` counts what befell connections: a fault that hit nobody is not counted.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.port = 0
        self.delay_seconds = 0.0
        """Each piece of data waits for so long, in both directions."""
        self.refusal: int | None = None
        """Requests get this HTTP status instead of an answer."""
        self.answers_to_lose = 0
        """So many COMMITs of PostgreSQL, POSTs and PUTs of HTTP, or calls of Temporal that carry something, get
        through, and their answers do not: the connection ends instead."""
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
        self.heal()
        self._abort()
        if self._connections:
            await asyncio.wait(list(self._connections))

    def cut(self) -> None:
        """End every connection now, in the middle of whatever it carries. New ones are served."""
        self.struck["cut"] += len(self._connections)
        self._abort()

    def blackhole(self) -> None:
        """From now on nothing arrives, and nobody is told."""
        self._open_ended.clear()

    def refuse(self, status: int) -> None:
        """From now on answer every HTTP request with this status; connections that are open end."""
        self.refusal = status
        self._abort()

    def heal(self) -> None:
        """End what was begun. What a black hole has held up arrives now."""
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
            if self.refusal is not None:
                await self._answer(reader, writer, self.refusal)
                return
            there, connection.server = await asyncio.open_connection("127.0.0.1", self.upstream)
            # One end's going ends both: nothing here half-closes a connection.
            pumps = [
                asyncio.create_task(self._ask(reader, connection)),
                asyncio.create_task(self._tell(there, connection)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the server is down: so is the connection
        finally:
            self._connections.pop(task).abort()

    async def _ask(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        """Pass on what the client sends."""
        assert connection.server is not None
        while data := await self._next(reader):
            if connection.changes(data) and self.answers_to_lose > 0:
                self.answers_to_lose -= 1
                connection.loses = True
            connection.server.write(data)
            await connection.server.drain()

    async def _tell(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        """Pass on what the server answers."""
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

    # ---- instead of an answer

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: int) -> None:
        """Read a request, so that its sender gets to read, and refuse it as S3 does."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.struck[str(status)] += 1
        code, said = ("AccessDenied", "Forbidden") if status == 403 else ("InternalError", "Internal Server Error")
        body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>A fault test refuses.</Message></Error>'
        if head.startswith(b"HEAD"):
            body = ""
        answer = f"HTTP/1.1 {status} {said}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{answer}Connection: close\r\n\r\n{body}".encode())
        await writer.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while await reader.read(_PIECE_BYTES):
                    pass
