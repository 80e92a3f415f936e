"""Heartbeats for activities that wait for something without progress of its own. Cancels arrive only with them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import activity

from clients.cancellation import cancel_and_wait

_EVERY_SECONDS = 2.0
"""Seconds between heartbeats."""


@asynccontextmanager
async def heartbeating() -> AsyncIterator[None]:
    """Heartbeat every two seconds while the block runs.

    A shorter block sends none: each heartbeat is a request that the server persists.
    """

    async def beat() -> None:
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            activity.heartbeat()

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        await cancel_and_wait(beating)
