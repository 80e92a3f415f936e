"""The limit on what all builds together spend in a day. No call passes it, however many are made at once.

The day's total is kept in shards, one for the users whose ids have the same hash. Each shard may use up what it was
granted of the limit, so that a call usually locks its own shard only. If its grant does not suffice, it locks the
limit's row and takes more: from what no shard was granted, or from what others were granted and have not used.

Locks are taken after the user's day, in this order: the call's own shard, the limit, then other shards that no one has
locked; a locked one is skipped, so no one waits in a circle. A change of the limit locks the shards first, too.
"""

from dataclasses import dataclass
from datetime import date

from sqlalchemy import BigInteger, Date, Integer, Text, bindparam, text

from db.transaction import Transaction
from domain.budget import Verdict

SHARDS = 32
"""As in the SQL function `fleet_shard`."""

_CALLS_AHEAD = 8
"""A shard takes this part of an equal share at once, so that it locks the limit rarely."""

_DAY = bindparam("day", type_=Date())
_USER = bindparam("user", type_=Text())

_LOCK_SHARD = text(
    """
    select shard, spent + reserved, granted from fleet_days
    where day = :day and shard = fleet_shard(:user) for no key update
    """
).bindparams(_DAY, _USER)

_ADD_SHARD = text(
    "insert into fleet_days (day, shard) values (:day, fleet_shard(:user)) on conflict do nothing"
).bindparams(_DAY, _USER)

_LOCK_LIMIT = text("select value from limits where name = 'fleet_day' for no key update")

_SUMS = text(
    """
    select coalesce(sum(spent), 0), coalesce(sum(greatest(granted, spent + reserved)), 0)
    from fleet_days where day = :day
    """
).bindparams(_DAY)

_RECLAIM = text(
    """
    update fleet_days set granted = spent + reserved
    where day = :day and shard in (
        select shard from fleet_days where day = :day and shard <> :shard and granted > spent + reserved
        for no key update skip locked
    )
    """
).bindparams(_DAY, bindparam("shard", type_=Integer()))

_GRANT = text("update fleet_days set granted = :granted where day = :day and shard = :shard").bindparams(
    _DAY, bindparam("shard", type_=Integer()), bindparam("granted", type_=BigInteger())
)


@dataclass(frozen=True)
class Share:
    """What a call may reserve of the fleet's day; with another verdict than GO, nothing."""

    verdict: Verdict
    amount: int = 0


async def take(tx: Transaction, user_id: str, day: date, least: int, most: int) -> Share:
    """Let a call reserve up to `most` µ$, and no less than `least`, of the fleet's day.

    The amount counts once the caller's transaction, which adds the ledger's row, is committed. Until then the shard is
    locked.
    """
    shard, used, granted = await _lock_shard(tx, user_id, day)
    if used + most <= granted:
        return Share(Verdict.GO, most)
    limit = (await tx.execute(_LOCK_LIMIT, {})).scalar()
    if limit is None:
        return Share(Verdict.GO, most)
    owned = max(granted, used)
    spent, free = await _free(tx, day, limit)
    if used + most > owned + free:
        await tx.execute(_RECLAIM, {"day": day, "shard": shard})
        spent, free = await _free(tx, day, limit)
    amount = min(most, owned - used + free)
    if amount < least:
        return Share(Verdict.FLEET_EXHAUSTED if spent + least > limit else Verdict.BUSY)
    more = max(0, used + amount - owned)
    ahead = min(free, max(more, limit // (SHARDS * _CALLS_AHEAD)))
    await tx.execute(_GRANT, {"day": day, "shard": shard, "granted": owned + ahead})
    return Share(Verdict.GO, amount)


async def has_room(tx: Transaction, day: date, least: int) -> bool:
    """Whether a call of `least` µ$ fits into the fleet's day once open calls are settled. Locks nothing."""
    limit = (await tx.execute(_LIMIT, {})).scalar()
    if limit is None:
        return True
    spent, _ = (await tx.execute(_SUMS, {"day": day})).one()
    return bool(spent + least <= limit)


_LIMIT = text("select value from limits where name = 'fleet_day'")


async def _lock_shard(tx: Transaction, user_id: str, day: date) -> tuple[int, int, int]:
    key = {"day": day, "user": user_id}
    row = (await tx.execute(_LOCK_SHARD, key)).one_or_none()
    if row is None:
        await tx.execute(_ADD_SHARD, key)
        row = (await tx.execute(_LOCK_SHARD, key)).one()
    return int(row[0]), int(row[1]), int(row[2])


async def _free(tx: Transaction, day: date, limit: int) -> tuple[int, int]:
    """What is spent, and what is neither granted nor used."""
    spent, owned = (await tx.execute(_SUMS, {"day": day})).one()
    return int(spent), max(0, limit - int(owned))
