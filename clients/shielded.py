"""What a cancellation must not stop half-way, and cancellations that must not get lost."""

import asyncio
import contextlib
from collections.abc import Awaitable, Coroutine, Iterator
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


@contextlib.contextmanager
def cancel_kept() -> Iterator[None]:
    """Raise the cancellation that came during the block also when a library has swallowed it.

    `asyncio.wait_for` of Python 3.11 does (cpython #86296), where the answer comes at the same moment; `pyqwest` and
    `connectrpc` use it. The one who cancelled would wait for ever, or a cancelled build go on.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        yield
    finally:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError


async def ended(task: asyncio.Task[None]) -> None:
    """Cancel a task that runs beside a block, and wait for its end. A cancellation of our own goes on its way.

    Raises:
        Exception: what the task had ended with, before it was cancelled.
    """
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()
