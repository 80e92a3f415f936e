"""Run cleanup to completion even if the workflow is cancelled."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def shielded(cleanup: Coroutine[Any, Any, T]) -> T:
    """Await the cleanup and return its result; a cancel that arrives meanwhile is ignored."""
    task = asyncio.create_task(cleanup)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    return task.result()
