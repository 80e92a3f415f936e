"""Slots: a build waits for one of its user's, and a build that gives one back nudges the next in the queue."""

import uuid

import structlog
from temporalio import activity
from temporalio.service import RPCError

from activities.runtime.errors import application_errors
from clients.build_workflows import BuildWorkflows
from db import slots
from db.session import Sessions
from domain.errors import NotFound
from domain.payloads import BuildRef, SlotClaim

_log = structlog.get_logger(__name__)


class SlotActivities:
    """`claim_slot`, with the database."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    @activity.defn(name="claim_place")
    @application_errors
    async def claim_slot(self, request: BuildRef) -> SlotClaim:
        """Take one of the user's slots, if one is free; a build that has one keeps it."""
        async with self._sessions.begin() as session:
            return await slots.claim_slot(session, uuid.UUID(request.build_id))


async def admit_next(sessions: Sessions, builds: BuildWorkflows, user_id: str) -> int:
    """Nudge the builds that are next in the queue to claim a slot; returns how many were nudged.

    Only a nudge: the reaper repeats it, and a queued build looks by itself every hour.
    """
    async with sessions.begin() as session:
        waiting = await slots.builds_next_in_queue(session, user_id)
    told = 0
    for build_id in waiting:
        try:
            await builds.admit(build_id)
            told += 1
        except (NotFound, RPCError) as error:
            _log.info("a queued build could not be nudged to claim its slot", build_id=str(build_id), error=str(error))
    return told
