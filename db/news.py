"""News of money: builds are told when their user's allowance or standing has changed."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress

from db import money
from db.session import Sessions
from domain.errors import NotFound

Tell = Callable[[uuid.UUID], Awaitable[None]]
"""Sends a build the news: `BuildWorkflows.tell_of_money`."""


async def tell_of_money(sessions: Sessions, send: Tell, user_id: str) -> list[uuid.UUID]:
    """Tell the user's open builds of a change that is committed; those that were told.

    Only a nudge: what does not get through, the reaper repeats.

    Raises:
        RPCError: Temporal did not take it.
    """
    async with sessions.begin() as session:
        since = await money.last_change(session, user_id)
        open_builds = await money.open_builds_of(session, user_id)
    told: list[uuid.UUID] = []

    async def tell(build_id: uuid.UUID) -> None:
        with suppress(NotFound):
            await send(build_id)
        told.append(build_id)

    try:
        await asyncio.gather(*map(tell, open_builds))
    finally:
        async with sessions.begin() as session:
            await money.note_told(session, told, since)
    return told
