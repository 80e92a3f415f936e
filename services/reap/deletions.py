"""Which objects of the store the reaper deletes: those whose tombstones are due and that no row names."""

from datetime import UTC, datetime

from db import reaper
from db.session import Sessions
from db.tombstones import DueObject, is_prefix, list_due
from db.transaction import transaction
from domain.verdicts import ObjectEvidence, may_delete_object
from services.reap.look import PlannedAct

STEP = "store"

_PLANNED = 1000
"""Objects in a plan, at most."""


async def plan_deletions(sessions: Sessions) -> list[PlannedAct]:
    """Which objects a look would delete, if the rows were the latest when it was last checked. Nothing is changed.

    Tombstones that a look would write are left out: what they name stays for a week.
    """
    async with transaction(sessions) as tx:
        if alert := await reaper.find_alert(tx, STEP):
            return [PlannedAct("stop", "", alert)]
        due = await list_due(tx, _PLANNED, datetime.now(UTC))
    return [
        PlannedAct("delete object", each.key, _why(each))
        for each in due
        if may_delete_object(evidence_of(each), is_due=True)
    ]


def _why(due: DueObject) -> str:
    if is_prefix(due.key):
        return f"{due.build_id} was erased; whatever is below this key came afterwards."
    return f"Build {due.build_id} does not need it; its week is over."


def evidence_of(due: DueObject) -> ObjectEvidence:
    """What is known about an object whose tombstone is due, if the rows are the latest."""
    return ObjectEvidence(is_ours=True, has_row=True, is_named=due.is_named, is_old=True, is_trusted=True)
