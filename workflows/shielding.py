"""Running the end of a workflow to its end."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def shielded(ending: Coroutine[Any, Any, T]) -> T:
    """Await an ending to its end, also when a cancel arrives meanwhile."""
    task = asyncio.create_task(ending)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    return task.result()
