"""The cost of a user's model calls, summed from the ledger."""

import uuid
from dataclasses import dataclass
from datetime import date

from sqlalchemy import ColumnElement, and_, func, select

from db import access
from db.models import Build, LedgerEntry, Project, TopUp, UserDay
from db.transaction import Transaction
from domain.lost_calls import JUDGE


@dataclass(frozen=True)
class Sums:
    """The number of model calls, made or open, their tokens by class, and their cost in µ$."""

    calls: int
    input_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    cache_read_tokens: int
    output_tokens: int
    cost: int
    judge_calls: int = 0
    judge_cost: int = 0
    """Of these, the calls that judged products."""


@dataclass(frozen=True)
class UsageOfDay:
    """One day's calls of one model."""

    day: date
    model: str
    sums: Sums


@dataclass(frozen=True)
class UsageOfBuild:
    """One build's calls."""

    build_id: uuid.UUID
    project_id: uuid.UUID
    project_name: str
    sums: Sums


_SUMS = (
    func.count(),
    *(
        func.coalesce(func.sum(column), 0)
        for column in (
            LedgerEntry.input_tokens,
            LedgerEntry.cache_write_5m_tokens,
            LedgerEntry.cache_write_1h_tokens,
            LedgerEntry.cache_read_tokens,
            LedgerEntry.output_tokens,
            LedgerEntry.cost,
        )
    ),
    func.count().filter(LedgerEntry.kind == JUDGE),
    func.coalesce(func.sum(LedgerEntry.cost).filter(LedgerEntry.kind == JUDGE), 0),
)


def _within(user_id: str, first: date, last: date) -> ColumnElement[bool]:
    return and_(
        access.owned(LedgerEntry, user_id), LedgerEntry.day.between(first, last), LedgerEntry.state != "released"
    )


async def usage_by_day(tx: Transaction, user_id: str, first: date, last: date) -> list[UsageOfDay]:
    """Return the usage by UTC day and model from `first` to `last`, both included, in the order of the days."""
    rows = await tx.session.execute(
        select(LedgerEntry.day, LedgerEntry.model, *_SUMS)
        .where(_within(user_id, first, last))
        .group_by(LedgerEntry.day, LedgerEntry.model)
        .order_by(LedgerEntry.day, LedgerEntry.model)
    )
    return [UsageOfDay(day, model, Sums(*map(int, sums))) for day, model, *sums in rows]


async def usage_by_build(tx: Transaction, user_id: str, first: date, last: date) -> list[UsageOfBuild]:
    """Return the usage by build from `first` to `last`, both included, newest build first."""
    rows = await tx.session.execute(
        select(Build.id, Build.project_id, Project.name, *_SUMS)
        .join(Build, Build.id == LedgerEntry.build_id)
        .join(Project, Project.id == Build.project_id)
        .where(_within(user_id, first, last))
        .group_by(Build.id, Build.project_id, Project.name, Build.created_at)
        .order_by(Build.created_at.desc(), Build.id)
    )
    return [UsageOfBuild(build, project, name, Sums(*map(int, sums))) for build, project, name, *sums in rows]


async def allowances(tx: Transaction, user_id: str, first: date, last: date) -> dict[date, int]:
    """Return the user's allowance in µ$ of each day on which it was limited and fixed, top-ups included."""
    fixed = await tx.session.execute(
        select(UserDay.day, UserDay.from_plan).where(
            UserDay.user_id == user_id, UserDay.day.between(first, last), UserDay.from_plan.is_not(None)
        )
    )
    added = await tx.session.execute(
        select(TopUp.day, func.sum(TopUp.amount))
        .where(TopUp.user_id == user_id, TopUp.day.between(first, last))
        .group_by(TopUp.day)
    )
    added_on = {day: int(amount) for day, amount in added}
    return {day: int(from_plan) + added_on.get(day, 0) for day, from_plan in fixed if from_plan is not None}
