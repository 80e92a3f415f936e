"""Totals of days that are not the sums of the ledger's rows: find them, and correct them."""

from collections.abc import Sequence
from datetime import date

from db.drift import Drift, correct_fleet, correct_users, find_drift
from db.session import Sessions
from db.transaction import transaction
from domain.audit import Action
from services.audit import record


async def find_drifts(sessions: Sessions, first_day: date) -> Sequence[Drift]:
    """Find the totals of the first day and later ones that are wrong. Reads the ledger of those days."""
    async with transaction(sessions) as tx:
        return await find_drift(tx, first_day)


async def correct_drifts(sessions: Sessions, first_day: date) -> Sequence[Drift]:
    """Set the totals that are wrong to the sums of their rows, while builds go on.

    Returns:
        The totals that were wrong.
    """
    async with transaction(sessions) as tx:
        drifts = await find_drift(tx, first_day)
        await correct_users(tx, drifts)
        if drifts:
            await record(tx, Action.LEDGER_CORRECT, totals=len(drifts))
    if drifts:
        async with transaction(sessions) as tx:
            await correct_fleet(tx, first_day)
    return drifts
