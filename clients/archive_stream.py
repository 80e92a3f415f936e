"""Reads an archive in a thread while its bytes pass by, so that neither it nor the result is ever whole in memory."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, cast

from clients.cancellation import wait_for_answer


async def read_in_thread(
    archive: AsyncGenerator[bytes, None], read: Callable[[IO[bytes]], Iterator[bytes]]
) -> AsyncGenerator[bytes, None]:
    """The pieces that `read` makes of the archive. They are made in a thread. Closes the archive at the end.

    `read` gets the archive as a file, of which only `read(size)` works; it may return less.
    """
    loop = asyncio.get_running_loop()
    # Its own thread: it waits for pieces, and in a shared pool it could block the tasks that bring them.
    with contextlib.closing(_Thread()) as thread:
        async with contextlib.aclosing(archive):
            pieces = read(cast("IO[bytes]", _Incoming(archive, loop)))
            # Wait for a running step even if the HTTP client has gone, because it still reads from the archive.
            while piece := await wait_for_answer(loop.run_in_executor(thread.pool, next, pieces, b"")):
                yield piece


class _Thread:
    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="archive")

    def close(self) -> None:
        self.pool.shutdown(wait=False)


class _Incoming:
    """The archive as a file. Only the thread calls `read`, which may return less than `size`."""

    def __init__(self, archive: AsyncGenerator[bytes, None], loop: asyncio.AbstractEventLoop) -> None:
        self._archive = archive
        self._loop = loop
        self._buffer = memoryview(b"")

    def read(self, size: int) -> bytes:
        if not self._buffer:
            self._buffer = memoryview(asyncio.run_coroutine_threadsafe(self._next(), self._loop).result())
        piece = self._buffer[:size]
        self._buffer = self._buffer[len(piece) :]
        return bytes(piece)

    async def _next(self) -> bytes:
        return await anext(self._archive, b"")
