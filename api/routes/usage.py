"""Tokens and cost of a user's model calls."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BeforeValidator

from api.deps import CurrentUserId, IsOperator, TransactionDep, needs
from api.responses import problems
from api.schemas import BuildUsage, DayUsage, UsageOut
from db.usage import allowances, usage_by_build, usage_by_day
from domain.errors import InvalidInput
from domain.identity import Scope

router = APIRouter(tags=["usage"])

_DEFAULT_DAYS = 30
_MAX_DAYS = 366


def _only_iso(value: object) -> object:
    """Refuse what Pydantic would read as a number of seconds."""
    if isinstance(value, str) and not re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        raise ValueError("Input should be a day such as 2026-11-24")
    return value


Day = Annotated[date, BeforeValidator(_only_iso)]


@router.get("/usage", dependencies=[needs(Scope.ACCOUNT_READ)], summary="Read the usage", responses=problems(422))
async def usage(
    user_id: CurrentUserId,
    tx: TransactionDep,
    operator: IsOperator,
    from_: Annotated[
        Day | None, Query(alias="from", description="The first UTC day; by default 30 days up to `to`.")
    ] = None,
    to: Annotated[Day | None, Query(description="The last UTC day, included; by default today.")] = None,
) -> UsageOut:
    """Tokens and, for operators, cost of the user's model calls: per day and model, and per build. A call counts on the
    day on which it started. At most 366 days at once."""
    last = to or datetime.now(UTC).date()
    first = from_ or last - min(timedelta(days=_DEFAULT_DAYS - 1), last - date.min)
    if first > last:
        raise InvalidInput(f"`from` is {first}, which is after {last}.", "from")
    if (last - first).days >= _MAX_DAYS:
        raise InvalidInput(f"The days from {first} to {last} are more than {_MAX_DAYS}. Request fewer.", "from")
    days = await usage_by_day(tx, user_id, first, last)
    builds = await usage_by_build(tx, user_id, first, last)
    allowance_of = await allowances(tx, user_id, first, last)
    return UsageOut(
        from_day=first,
        to_day=last,
        cost_microdollars=sum(day.sums.cost for day in days) if operator else None,
        days=[DayUsage.of(day, allowance_of.get(day.day), operator=operator) for day in days],
        builds=[BuildUsage.of(build, operator=operator) for build in builds],
    )
