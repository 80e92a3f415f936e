"""What answers say of builds beside their rows: the budgets that pay for them, and their places in the queue."""

import uuid
from collections.abc import Collection
from datetime import UTC, datetime

from api.schemas import BudgetOut
from db import money
from db.models import Build
from db.progress import places_in_queue
from db.transaction import Transaction, seeing_every_row


async def read_budgets(tx: Transaction, user_id: str, payers: Collection[str], operator: bool) -> dict[str, BudgetOut]:
    """Today's budgets of those who started builds that the user may see, also of ones that ended long ago: a budget
    belongs to the user, not to the build."""
    budgets = {user_id: await _budget(tx, user_id, operator)} if user_id in payers else {}
    if others := set(payers) - {user_id}:
        # The user may see these builds, and so the share of the allowance that pays for them.
        async with seeing_every_row(tx):
            budgets |= {payer: await _budget(tx, payer, operator) for payer in sorted(others)}
    return budgets


async def _budget(tx: Transaction, user_id: str, operator: bool) -> BudgetOut:
    now = datetime.now(UTC)
    return BudgetOut.of(await money.budget_of(tx, user_id, now.date()), now, operator=operator)


async def read_queue_places(tx: Transaction, listed: Collection[Build]) -> dict[uuid.UUID, int]:
    """The places of those of the builds that wait until their user may run another."""
    users = {build.user_id for build in listed if build.closed_at is None and build.admitted_at is None}
    if not users:
        return {}
    # Builds of the same user that this one may not see are ahead of theirs all the same.
    async with seeing_every_row(tx):
        return await places_in_queue(tx, users)
