"""Heartbeats while an activity waits for something that does not report progress; cancels arrive only with them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import activity

from clients.shielded import ended

_EVERY_SECONDS = 2.0


@asynccontextmanager
async def heartbeating() -> AsyncIterator[None]:
    """Heartbeat every two seconds for as long as the block runs. What is shorter needs none, and each is a request that
    the server writes down."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            activity.heartbeat()

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        await ended(beating)
