"""Compare the totals that triggers keep with the sums that they stand for."""

from dataclasses import dataclass
from datetime import date

from sqlalchemy import Date, bindparam, text

from db.transaction import Transaction


@dataclass(frozen=True)
class Drift:
    """A total that is not the sum that it stands for. Amounts in µ$."""

    day: date
    whose: str
    """A user's id, or `fleet` with the number of the shard."""
    spent: int
    reserved: int
    spent_sum: int
    reserved_sum: int


_DRIFT = text(
    """
    with of_ledger as (
        select user_id, day, sums.spent, sums.reserved
        from user_days as days cross join lateral (
            select coalesce(sum(cost) filter (where state <> 'open'), 0) as spent,
                coalesce(sum(cost) filter (where state = 'open'), 0) as reserved
            from ledger where ledger.user_id = days.user_id and ledger.day = days.day
        ) as sums
        where day >= :first
    ), of_users as (
        select day, fleet_shard(user_id) as shard, sum(spent) as spent, sum(reserved) as reserved
        from user_days where day >= :first and spent is not null group by 1, 2
    )
    select day, user_id, days.spent, days.reserved, coalesce(of_ledger.spent, 0), coalesce(of_ledger.reserved, 0)
    from user_days as days left join of_ledger using (user_id, day)
    where day >= :first and days.spent is not null
        and (days.spent, days.reserved) <> (coalesce(of_ledger.spent, 0), coalesce(of_ledger.reserved, 0))
    union all
    select day, 'fleet ' || shard, coalesce(fleet.spent, 0), coalesce(fleet.reserved, 0), coalesce(of_users.spent, 0),
        coalesce(of_users.reserved, 0)
    from (select * from fleet_days where day >= :first) as fleet full join of_users using (day, shard)
    where (coalesce(fleet.spent, 0), coalesce(fleet.reserved, 0))
        <> (coalesce(of_users.spent, 0), coalesce(of_users.reserved, 0))
    order by 1, 2
    """
).bindparams(bindparam("first", type_=Date()))
"""One statement, and so one snapshot: a total and the rows below it are committed together."""


_LOOKING = 0x0C0FD21F
"""Key of the advisory lock that lets one process look at a time."""


async def looks_alone(tx: Transaction) -> bool:
    """Whether no other process looks for drift. Until the transaction ends, no other one does."""
    return bool(await tx.session.scalar(text("select pg_try_advisory_xact_lock(:key)"), {"key": _LOOKING}))


async def find_drift(tx: Transaction, first_day: date) -> list[Drift]:
    """Totals of the first day and later ones that are not the sum of their rows. Reads the ledger of those days."""
    rows = await tx.execute(_DRIFT, {"first": first_day})
    return [
        Drift(day, whose, int(spent), int(reserved), int(spent_sum), int(reserved_sum))
        for day, whose, spent, reserved, spent_sum, reserved_sum in rows
    ]
