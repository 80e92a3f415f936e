"""Figures of the whole fleet, for operators: turns, spending, permits, rates, processes and the reaper's steps.

Transactions have to see every row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Date, Integer, bindparam, func, select, text

from db.models import ModelBucket, Process, ReaperStep
from db.transaction import Transaction
from domain.rates import Bucket


@dataclass(frozen=True)
class Spent:
    """What was spent under a name, in µ$."""

    key: str
    spent: int


@dataclass(frozen=True)
class PermitUse:
    """How many permits sandboxes of a role hold, and how many wait for one."""

    role: str
    used: int
    queued: int


@dataclass(frozen=True)
class ModelRates:
    """What is left of a model's limits: requests and tokens that may be used at once. None: no limit is known."""

    model: str
    requests_left: float | None
    input_left: float | None
    output_left: float | None
    blocked_until: datetime | None


@dataclass(frozen=True)
class RunningProcess:
    """A worker or an API that was seen in the last minutes."""

    role: str
    version: str
    seen_at: datetime


_TURNS = text(
    """
    select count(*) from builds cross join lateral (
        select 1 from turns
        where turns.build_id = builds.id and turns.answered_at > now() - interval '1 minute'
            and turns.number > (select max(number) - 60 from turns as latest where latest.build_id = builds.id)
    ) as answered
    where builds.closed_at is null
        and (
            builds.status in ('starting', 'scaffold', 'code', 'checks')
            or builds.status_at > now() - interval '1 minute'
        )
        or builds.closed_at > now() - interval '1 minute'
    """
)
"""Only builds that work, or did until just now, and only their latest turns: no index has the times of turns."""

_BY_PLAN = text(
    """
    select users.plan, coalesce(sum(user_days.spent), 0) as spent
    from user_days join users on users.id = user_days.user_id
    where user_days.day = :day group by users.plan having sum(user_days.spent) > 0 order by 2 desc, 1
    """
).bindparams(bindparam("day", type_=Date()))

_BY_MODEL = text(
    """
    select ledger.model, sum(ledger.cost) as spent
    from user_days join ledger on ledger.user_id = user_days.user_id and ledger.day = user_days.day
    where user_days.day = :day and ledger.state in ('settled', 'estimated')
    group by ledger.model having sum(ledger.cost) > 0 order by 2 desc, 1
    """
).bindparams(bindparam("day", type_=Date()))
"""By way of the users' days, which have an index by day."""

_PERMITS = text(
    """
    select role, count(*) filter (where held_since is not null), count(*) filter (where held_since is null)
    from permits group by role
    union all
    select 'push', count(*), 0 from push_permits where expires_at > clock_timestamp() having count(*) > 0
    order by 1
    """
)


class SpendBy(StrEnum):
    """What spending is summed by."""

    USER = "user"
    PLAN = "plan"
    MODEL = "model"
    DAY = "day"


@dataclass(frozen=True)
class Spend:
    """Calls, tokens and cost (µ$) under a key, and what was spent a day in the week before."""

    key: str
    calls: int
    input_tokens: int
    cache_write_tokens: int
    cache_read_tokens: int
    output_tokens: int
    spent: int
    before: float
    """The mean of the seven days before the first one, in µ$ a day."""


WEEK = timedelta(days=7)

_KEYS = {
    SpendBy.USER: "ledger.user_id",
    SpendBy.PLAN: "users.plan",
    SpendBy.MODEL: "ledger.model",
    SpendBy.DAY: "cast(ledger.day as text)",
}

_SPEND = {
    by: text(
        f"""
        select {key}, count(*) filter (where ledger.day >= :first),
            {
            ", ".join(
                f"coalesce(sum({column}) filter (where ledger.day >= :first), 0)"
                for column in (
                    "input_tokens",
                    "cache_write_5m_tokens + cache_write_1h_tokens",
                    "cache_read_tokens",
                    "output_tokens",
                    "cost",
                )
            )
        },
            coalesce(sum(cost) filter (where ledger.day < :first), 0) / 7.0
        from user_days join users on users.id = user_days.user_id
            join ledger on ledger.user_id = user_days.user_id and ledger.day = user_days.day
        where user_days.day between :before and :last and ledger.state <> 'released'
        group by 1 having count(*) filter (where ledger.day >= :first) > 0
        order by {"1" if by is SpendBy.DAY else "7 desc, 1"} limit :limit
        """
    ).bindparams(
        *(bindparam(name, type_=Date()) for name in ("first", "before", "last")), bindparam("limit", type_=Integer())
    )
    for by, key in _KEYS.items()
}
"""By way of the users' days, which have an index by day."""


async def spending(tx: Transaction, by: SpendBy, first: date, last: date, limit: int) -> list[Spend]:
    """What was spent from `first` to `last`, both included: the most first, days in their order."""
    before = first if by is SpendBy.DAY else first - WEEK
    values = {"first": first, "before": before, "last": last, "limit": limit}
    return [
        Spend(key, int(calls), int(read), int(written), int(cached), int(output), int(spent), float(daily))
        for key, calls, read, written, cached, output, spent, daily in await tx.execute(_SPEND[by], values)
    ]


async def turns_of_last_minute(tx: Transaction) -> int:
    """Count the turns that were answered in the last minute; of one build at most 60."""
    return int((await tx.execute(_TURNS, {})).scalar())


async def spent_by_plan(tx: Transaction, day: date) -> list[Spent]:
    """What the users of each plan have spent on a day, the most first."""
    return [Spent(plan, int(spent)) for plan, spent in await tx.execute(_BY_PLAN, {"day": day})]


async def spent_by_model(tx: Transaction, day: date) -> list[Spent]:
    """What was spent on each model on a day, the most first."""
    return [Spent(model, int(spent)) for model, spent in await tx.execute(_BY_MODEL, {"day": day})]


async def permit_uses(tx: Transaction) -> list[PermitUse]:
    """Count the permits by the role of their sandboxes."""
    return [PermitUse(role, int(used), int(queued)) for role, used, queued in await tx.execute(_PERMITS, {})]


async def model_rates(tx: Transaction) -> list[ModelRates]:
    """What is left of each model's limits now."""
    now = (await tx.execute(text("select clock_timestamp()"), {})).scalar()
    rows = await tx.session.scalars(select(ModelBucket).order_by(ModelBucket.model, ModelBucket.kind))
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        of_model = found.setdefault(row.model, {"requests": None, "input": None, "output": None, "blocked": None})
        if row.per_minute is not None:
            of_model[row.kind] = Bucket(row.per_minute, row.level, row.refilled_at).refilled(now).level
        if row.blocked_until is not None and row.blocked_until > now:
            of_model["blocked"] = row.blocked_until
    return [
        ModelRates(model, each["requests"], each["input"], each["output"], each["blocked"])
        for model, each in found.items()
    ]


async def running_processes(tx: Transaction, alive_seconds: float) -> list[RunningProcess]:
    """The processes that were seen in the last seconds, workers last."""
    alive = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, alive_seconds)
    rows = await tx.session.scalars(
        select(Process).where(Process.seen_at > alive).order_by(Process.role, Process.version, Process.seen_at.desc())
    )
    return [RunningProcess(row.role, row.version, row.seen_at) for row in rows]


async def reaper_steps(tx: Transaction) -> Sequence[ReaperStep]:
    """How far the reaper's steps have come, and what it alerts operators to."""
    return (await tx.session.scalars(select(ReaperStep).order_by(ReaperStep.step))).all()
