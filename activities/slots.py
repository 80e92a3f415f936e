"""Claim one of the user's slots for a build."""

import uuid

from temporalio import activity

from activities.runtime.errors import application_errors
from activities.status import write_status
from db import slots
from db.session import Sessions
from db.transaction import transaction
from domain.payloads import ClaimSlot, SlotClaim


class SlotActivities:
    """The activity `claim_slot`."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    @activity.defn(name="claim_place")
    @application_errors
    async def claim_slot(self, request: ClaimSlot) -> SlotClaim:
        """Take one of the user's slots, if one is free; a build that has one keeps it.

        Raises:
            RowsAreAhead: the build's row has a later status than the one to record with the slot.
        """
        async with transaction(self._sessions) as tx:
            claim = await slots.claim_slot(tx, uuid.UUID(request.build_id))
            if not claim.claimed or request.change is None:
                return claim
            await write_status(tx, request.change)
            return claim.model_copy(update={"recorded": True})
