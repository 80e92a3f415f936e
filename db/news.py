"""News of money: builds are told when their user's allowance or standing has changed."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable

import structlog

from db import money
from db.session import Sessions
from domain.errors import NotFound

_log = structlog.get_logger(__name__)

Tell = Callable[[uuid.UUID], Awaitable[None]]
"""Sends a build the news: `BuildWorkflows.tell_of_money`."""


async def tell_of_money(sessions: Sessions, send: Tell, user_id: str) -> list[uuid.UUID]:
    """Tell the user's open builds of a change that is committed; returns those whose workflow received it.

    Only a nudge: the reaper repeats what was not delivered. A workflow that is not found may be in another namespace.

    Raises:
        RPCError: Temporal did not take it.
    """
    async with sessions.begin() as session:
        since = await money.last_change(session, user_id)
        open_builds = await money.open_builds_of(session, user_id)
    told: list[uuid.UUID] = []

    async def tell(build_id: uuid.UUID) -> None:
        try:
            await send(build_id)
        except NotFound as error:
            _log.info("a build did not receive the change of money", build_id=str(build_id), error=str(error))
        else:
            told.append(build_id)

    try:
        await asyncio.gather(*map(tell, open_builds))
    finally:
        async with sessions.begin() as session:
            await money.note_told(session, told, since)
    return told
