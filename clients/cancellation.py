"""Runs what a cancellation must not stop half-way, and keeps cancellations from getting lost."""

import asyncio
import contextlib
from collections.abc import Awaitable, Coroutine, Iterator
from typing import Any, TypeVar

import structlog

T = TypeVar("T")

_log = structlog.get_logger(__name__)


async def wait_for_answer(request: Awaitable[T]) -> T:
    """Wait until a request is answered, even if this is cancelled meanwhile.

    Raises:
        CancelledError: this was cancelled; raised only after the answer.
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
            task.exception()  # retrieved, so that asyncio does not log it: the cancellation is raised
        raise


async def run_to_completion(cleanup: Coroutine[Any, Any, None]) -> None:
    """Run a cleanup to completion even if this is cancelled. Only logs a failure, so that it hides no other error."""
    task = asyncio.ensure_future(cleanup)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            continue
        except Exception:
            break
    if error := task.exception():
        _log.warning("cleanup failed", error=error)


@contextlib.contextmanager
def preserve_cancel() -> Iterator[None]:
    """Raise a cancellation that came during the block even if a library swallowed it.

    `asyncio.wait_for` of Python 3.11 swallows one that comes at the same moment as the answer (cpython #86296);
    `pyqwest` and `connectrpc` use it. Then the canceller would wait for ever, or a cancelled build would go on.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        yield
    finally:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError


async def cancel_and_wait(task: asyncio.Task[None]) -> None:
    """Cancel a task that runs beside a block, and wait for its end. A cancellation of this one is raised as usual.

    Raises:
        Exception: the error with which the task had already ended.
    """
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()
