"""Waits for conditions, with deadlines that also suit a busy machine."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar, overload

from domain.budget import next_utc_midnight

T = TypeVar("T")

DEADLINE = 300.0
"""Give up a wait after this many seconds. Only a failing test waits that long, but two suites at once on a small
machine take many times as long as one alone."""

LOOK_SECONDS = 0.05
"""Check a condition again after this many seconds."""


async def until_far_from_midnight(seconds: float = 60) -> None:
    """Wait for the next UTC day if it begins within so many seconds: for tests that must see one day only."""
    now = datetime.now(UTC)
    left = (next_utc_midnight(now) - now).total_seconds()
    if left < seconds:
        await asyncio.sleep(left + 0.1)


@overload
async def wait_until(
    condition: Callable[[], Awaitable[T | None]], *, seconds: float = ..., look_seconds: float = ...
) -> T: ...


@overload
async def wait_until(condition: Callable[[], T | None], *, seconds: float = ..., look_seconds: float = ...) -> T: ...


async def wait_until(
    condition: Callable[[], Any], *, seconds: float = DEADLINE, look_seconds: float = LOOK_SECONDS
) -> Any:
    """Return the result of the condition, which may be a coroutine function, as soon as it is true.

    Raises:
        TimeoutError: it did not become true in time.
    """
    async with asyncio.timeout(seconds):
        while True:
            answer = condition()
            if inspect.isawaitable(answer):
                answer = await answer
            if answer:
                return answer
            await asyncio.sleep(look_seconds)


def wait_until_blocking(condition: Callable[[], T | None], *, seconds: float = DEADLINE) -> T:
    """Do the same in a test without an event loop.

    Raises:
        TimeoutError: it did not become true in time.
    """
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not true within {seconds} seconds")
        time.sleep(LOOK_SECONDS)
    return answer
