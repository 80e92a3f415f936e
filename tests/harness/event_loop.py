"""Measures for how long something keeps the event loop from anything else."""

import asyncio
import time
from collections.abc import Awaitable, Callable


async def longest_pause(
    work: Callable[[], Awaitable[object]], clock: Callable[[], float] = time.monotonic
) -> tuple[float, float]:
    """Return the seconds that this took, and the longest time for which the event loop did nothing else.

    With `time.process_time` as the clock, what other programs do counts for nothing.
    """
    longest, ended = 0.0, False

    async def watch() -> None:
        nonlocal longest
        last = clock()
        while not ended:
            await asyncio.sleep(0.01)
            now = clock()
            longest, last = max(longest, now - last - 0.01), now

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.02)
    started = clock()
    await work()
    took = clock() - started
    ended = True
    await watching
    return took, longest
