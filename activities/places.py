"""Places: a build waits for one of its user's, and whoever gives one back tells the next in line."""

import uuid

import structlog
from temporalio import activity
from temporalio.service import RPCError

from activities.edge import edge
from clients.build_workflows import BuildWorkflows
from db import places
from db.session import Sessions
from domain.errors import NotFound
from domain.payloads import BuildRef, SlotClaim

_log = structlog.get_logger(__name__)


class PlaceActivities:
    """`claim_place`, with the database."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    @activity.defn
    @edge
    async def claim_place(self, given: BuildRef) -> SlotClaim:
        """Take one of the user's places, if one is free; a build that has one keeps it."""
        async with self._sessions.begin() as session:
            return await places.claim_place(session, uuid.UUID(given.build_id))


async def admit_next(sessions: Sessions, builds: BuildWorkflows, user_id: str) -> int:
    """Tell the builds that are next in line to look for a place; how many were told.

    Only a nudge: the reaper repeats it, and a queued build looks by itself every hour.
    """
    async with sessions.begin() as session:
        waiting = await places.next_in_line(session, user_id)
    told = 0
    for build_id in waiting:
        try:
            await builds.admit(build_id)
            told += 1
        except (NotFound, RPCError) as error:
            _log.info("a queued build was not told of its place", build_id=str(build_id), error=str(error))
    return told
