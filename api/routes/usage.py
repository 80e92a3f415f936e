"""What a user's model calls came to."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BeforeValidator

from api.deps import CurrentUserId, IsOperator, Transaction
from api.responses import problems
from api.schemas import BuildUsage, DayUsage, UsageOut
from db.usage import usage_by_build, usage_by_day
from domain.errors import InvalidInput

router = APIRouter(tags=["usage"])

_DAYS_SHOWN = 30
_DAYS_MAX = 366


def _only_iso(sent: object) -> object:
    """Pydantic takes numbers for days, too: as seconds."""
    if isinstance(sent, str) and not re.fullmatch(r"\d{4}-\d\d-\d\d", sent):
        raise ValueError("Input should be a day such as 2026-11-24")
    return sent


Day = Annotated[date, BeforeValidator(_only_iso)]


@router.get("/usage", summary="Read the usage", responses=problems(422))
async def usage(
    user_id: CurrentUserId,
    session: Transaction,
    operator: IsOperator,
    from_: Annotated[
        Day | None, Query(alias="from", description="The first UTC day; without it, 30 days up to `to`.")
    ] = None,
    to: Annotated[Day | None, Query(description="The last UTC day, itself included; without it, today.")] = None,
) -> UsageOut:
    """Tokens and, for operators, cost of the user's model calls: per day and model, and per build. A call counts on the
    day on which it began. At most 366 days at once."""
    last = to or datetime.now(UTC).date()
    first = from_ or last - min(timedelta(days=_DAYS_SHOWN - 1), last - date.min)
    if first > last:
        raise InvalidInput(f"`from` is {first}, which is after {last}.", "from")
    if (last - first).days >= _DAYS_MAX:
        raise InvalidInput(f"From {first} to {last} are more than {_DAYS_MAX} days. Ask for fewer.", "from")
    found = await usage_by_day(session, user_id, first, last)
    builds = await usage_by_build(session, user_id, first, last)
    return UsageOut(
        from_day=first,
        to_day=last,
        cost_microdollars=sum(day.sums.cost for day in found) if operator else None,
        days=[DayUsage.of(day, operator=operator) for day in found],
        builds=[BuildUsage.of(build, operator=operator) for build in builds],
    )
