"""Lets a paid call end although the workflow's run that asked for it is gone, as after a reset.

The run that has taken its place asks for the same, finds that the call is in flight, and waits for what it stores.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError
from temporalio import activity

from db import money
from db.session import Sessions
from db.transaction import transaction

T = TypeVar("T")

KEEP_EVERY_SECONDS = 5.0
"""Seconds after which an attempt says again that it still makes the call."""

LOST_AFTER_SECONDS = 20.0
"""A call that another run has begun is lost if it has not ended this long after it was found, and its attempt does not
say that it is being made. An attempt learns with a heartbeat, after 12 seconds at most, that its run is gone."""

LOOK_SECONDS = 0.5
"""Look again after this long whether an earlier attempt has stored its answer."""

_KEPT_WITHIN_SECONDS = 4.0

_log = structlog.get_logger(__name__)


async def outlive_run(work: Coroutine[Any, Any, T], keep: Callable[[], Awaitable[None]]) -> T:
    """Do the work. It goes on if this attempt is cancelled because its run, or the attempt itself, is gone.

    `keep` is called every few seconds from then on.

    Raises:
        CancelledError: cancelled for another reason; the work has been cancelled and has ended.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if task.cancelled() or not _is_gone():
            with suppress(asyncio.CancelledError):
                await _end(task)
            raise
    _log.info("a model call outlives its run")
    try:
        while not task.done():
            await keep()
            await asyncio.wait({task}, timeout=KEEP_EVERY_SECONDS)
    except BaseException:
        await _end(task)
        raise
    return task.result()


async def keep_call(sessions: Sessions, claim: uuid.UUID) -> None:
    """Say that the call with this claim is still being made, if the database answers in time."""
    try:
        async with asyncio.timeout(_KEPT_WITHIN_SECONDS), transaction(sessions) as tx:
            await money.keep_call(tx, claim)
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        _log.warning("could not say that a call is still being made", error=type(error).__name__)


def _is_gone() -> bool:
    details = activity.cancellation_details()
    return details is not None and details.not_found and not details.cancel_requested


async def _end(task: asyncio.Future[Any]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # retrieved, so that asyncio does not log it
