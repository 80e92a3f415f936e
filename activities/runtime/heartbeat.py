"""Heartbeats for activities that wait for something without progress of its own. Cancels arrive only with them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import activity

_FIRST_SECONDS = 5.0
"""Seconds until the first heartbeat. Most activities are over by then, and each heartbeat is a write of the server."""

_EVERY_SECONDS = 2.0
"""Seconds between heartbeats. The SDK sends fewer: one for each 0.8 of the heartbeat timeout."""


@asynccontextmanager
async def heartbeating() -> AsyncIterator[None]:
    """Heartbeat while the block runs. A short block sends none."""
    beats = _Beats()
    try:
        yield
    finally:
        beats.end()


class _Beats:
    """A timer, not a task: every activity has one."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_FIRST_SECONDS, self._beat)

    def _beat(self) -> None:
        self._timer = self._loop.call_later(_EVERY_SECONDS, self._beat)
        activity.heartbeat()

    def end(self) -> None:
        self._timer.cancel()
