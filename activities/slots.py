"""Claim one of the user's slots for a build."""

import uuid

from temporalio import activity

from activities.runtime.errors import application_errors
from db import slots
from db.session import Sessions
from db.transaction import transaction
from domain.payloads import BuildRef, SlotClaim


class SlotActivities:
    """The activity `claim_slot`."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    @activity.defn(name="claim_place")
    @application_errors
    async def claim_slot(self, request: BuildRef) -> SlotClaim:
        """Take one of the user's slots, if one is free; a build that has one keeps it."""
        async with transaction(self._sessions) as tx:
            return await slots.claim_slot(tx, uuid.UUID(request.build_id))
