"""Measures for how long something keeps the event loop from anything else."""

import asyncio
import time
from collections.abc import Awaitable, Callable


async def longest_pause(work: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Return the seconds that this took, and the longest time for which the event loop did nothing else."""
    longest, ended = 0.0, False

    async def watch() -> None:
        nonlocal longest
        last = time.monotonic()
        while not ended:
            await asyncio.sleep(0.01)
            now = time.monotonic()
            longest, last = max(longest, now - last - 0.01), now

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.02)
    started = time.monotonic()
    await work()
    took = time.monotonic() - started
    ended = True
    await watching
    return took, longest
