"""A receiver of webhooks, for tests: keeps what it gets, and answers what it is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Receiver:
    """A server that keeps what it gets and answers what it is told; the last answer again and again."""

    url: str
    answers: list[bytes] = field(default_factory=lambda: [answer(204)])
    got: list[tuple[dict[str, str], str]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request and answer it."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in head.split("\r\n")[1:]) if name
        }
        body = await reader.readexactly(int(headers["content-length"]))
        self.got.append((headers, body.decode()))
        reply = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if reply:
            writer.write(b"" if reply == CONNECTION_CLOSED else reply)
            await writer.drain()
            writer.close()


def answer(status: int, *headers: str) -> bytes:
    """An HTTP answer without a body."""
    lines = [f"HTTP/1.1 {status} X", "Content-Length: 0", "Connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


NO_ANSWER = b""
CONNECTION_CLOSED = b"closed"


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Run a receiver on a free port of this machine."""
    receiver = Receiver("")
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    async with server:
        yield receiver
