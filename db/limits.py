"""Limits of the whole service, as rows that operators change while everything runs."""

from dataclasses import dataclass
from datetime import date

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from db.models import FleetDay, Limit
from db.transaction import Transaction
from domain.limits import LimitName


@dataclass(frozen=True)
class FleetSpending:
    """What all users together have spent and reserved on a day, in µ$."""

    spent: int
    reserved: int


async def set_limit(tx: Transaction, name: LimitName, value: int | None, *, by: str, today: date) -> Limit:
    """Set a limit; None removes it. Notify the builds that wait for it afterwards.

    The shards lose what they were granted and have not used, so that a lower limit holds at once. They are locked
    before the limit, as in `db/fleet.py`.
    """
    locked = select(FleetDay.shard).where(FleetDay.day >= today).order_by(FleetDay.day, FleetDay.shard)
    await tx.session.execute(locked.with_for_update(key_share=True))
    values = {"value": value, "set_by": by, "set_at": func.clock_timestamp(), "reached_on": None}
    row = await tx.session.scalars(
        insert(Limit)
        .values(name=name, **values)
        .on_conflict_do_update(index_elements=["name"], set_=values)
        .returning(Limit)
        .execution_options(populate_existing=True)
    )
    await tx.session.execute(
        update(FleetDay).where(FleetDay.day >= today).values(granted=FleetDay.spent + FleetDay.reserved)
    )
    return row.one()


async def find_limit(tx: Transaction, name: LimitName) -> Limit | None:
    """The limit, if it was ever set."""
    return await tx.session.get(Limit, name)


async def note_reached(tx: Transaction, name: LimitName, day: date) -> bool:
    """Note that the limit was reached on the day; returns whether this is the first time."""
    noted = await tx.session.scalars(
        update(Limit)
        .where(Limit.name == name, Limit.reached_on.is_distinct_from(day))
        .values(reached_on=day)
        .returning(Limit.name)
    )
    return noted.one_or_none() is not None


async def fleet_spending(tx: Transaction, day: date) -> FleetSpending:
    """What all users together have spent and reserved on the day."""
    sums = select(func.coalesce(func.sum(FleetDay.spent), 0), func.coalesce(func.sum(FleetDay.reserved), 0))
    spent, reserved = (await tx.session.execute(sums.where(FleetDay.day == day))).one()
    return FleetSpending(int(spent), int(reserved))
