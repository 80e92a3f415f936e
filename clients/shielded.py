"""Cleaning up while being cancelled."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

_log = structlog.get_logger(__name__)


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
