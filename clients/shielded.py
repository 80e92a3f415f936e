"""What a cancellation must not stop half-way."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

import structlog

T = TypeVar("T")

_log = structlog.get_logger(__name__)


async def answered(request: Awaitable[T]) -> T:
    """The answer to a request that is seen through to its end, also when this is cancelled meanwhile.

    Raises:
        CancelledError: after the answer, where this was cancelled before.
    """
    task = asyncio.ensure_future(request)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                continue
        if not task.cancelled():
            task.exception()  # looked at: the cancellation is the news
        raise


async def to_the_end(cleanup: Coroutine[Any, Any, None]) -> None:
    """Run a clean-up that a cancellation must not stop half-way. Its failure is logged: another error is on its way."""
    task = asyncio.ensure_future(cleanup)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            continue
        except Exception:
            break
    if error := task.exception():
        _log.warning("clean-up failed", error=str(error), kind=type(error).__name__)
