"""Copy bytes between streams, at the pace of the slower one."""

import asyncio
import contextlib

CHUNK_BYTES = 1 << 16


async def pipe(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None = None, *, half_close: bool = True
) -> None:
    """Copy until the end, or `limit` bytes. Then signal the end to the other side (`half_close`).

    A broken connection ends the copying without an error.
    """
    with contextlib.suppress(OSError, RuntimeError):
        while (limit is None or limit > 0) and (
            data := await reader.read(CHUNK_BYTES if limit is None else min(CHUNK_BYTES, limit))
        ):
            if limit is not None:
                limit -= len(data)
            writer.write(data)
            await writer.drain()
        if half_close and writer.can_write_eof():
            writer.write_eof()
            return
    if half_close:
        writer.close()


async def splice(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    other_reader: asyncio.StreamReader,
    other_writer: asyncio.StreamWriter,
) -> None:
    """Join two connections until both directions have ended."""
    await asyncio.gather(pipe(reader, other_writer), pipe(other_reader, writer))
