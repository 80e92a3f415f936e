"""Compare the totals that triggers keep with the sums that they stand for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from sqlalchemy import Date, bindparam, text

from db.transaction import Transaction

_FLEET_PREFIX = "fleet "
"""No user's id has a blank in it."""


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

    @property
    def is_of_fleet(self) -> bool:
        """Whether it is a part of all users' total."""
        return self.whose.startswith(_FLEET_PREFIX)


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


_DAYS_OF_USERS = text("select 1 from user_days where day = :day and user_id = :user for update").bindparams(
    bindparam("day", type_=Date())
)
_CORRECT_USER = text(
    """
    update user_days as days set spent = sums.spent, reserved = sums.reserved
    from (
        select coalesce(sum(cost) filter (where state <> 'open'), 0) as spent,
            coalesce(sum(cost) filter (where state = 'open'), 0) as reserved
        from ledger where user_id = :user and day = :day
    ) as sums
    where days.user_id = :user and days.day = :day
    """
).bindparams(bindparam("day", type_=Date()))

_FLEET = text("lock table fleet_days in share row exclusive mode")
_CORRECT_FLEET = text(
    """
    insert into fleet_days as fleet (day, shard, spent, reserved)
    select coalesce(kept.day, sums.day), coalesce(kept.shard, sums.shard), coalesce(sums.spent, 0),
        coalesce(sums.reserved, 0)
    from (select day, shard from fleet_days where day >= :first) as kept full join (
        select day, fleet_shard(user_id) as shard, sum(spent) as spent, sum(reserved) as reserved
        from user_days where day >= :first and spent is not null group by 1, 2
    ) as sums using (day, shard)
    on conflict (day, shard) do update set spent = excluded.spent, reserved = excluded.reserved
    where (fleet.spent, fleet.reserved) <> (excluded.spent, excluded.reserved)
    """
).bindparams(bindparam("first", type_=Date()))


async def correct_users(tx: Transaction, drifts: Sequence[Drift]) -> None:
    """Set the totals of users' days to the sums of their rows in the ledger.

    A writer of the ledger changes the day's row in the same transaction. So once its row is locked, all that has
    been counted is visible, and what is not visible yet is added afterwards.
    """
    for each in drifts:
        if not each.is_of_fleet:
            where = {"user": each.whose, "day": each.day}
            await tx.execute(_DAYS_OF_USERS, where)
            await tx.execute(_CORRECT_USER, where)


async def correct_fleet(tx: Transaction, first_day: date) -> None:
    """Set the fleet's totals of the first day and later ones to the sums of users' days, in a transaction of its own
    after `correct_users`: a user's day is added to the fleet's when its transaction ends."""
    await tx.execute(_FLEET, {})
    await tx.execute(_CORRECT_FLEET, {"first": first_day})
