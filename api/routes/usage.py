"""What a user's model calls cost."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BeforeValidator

from api.deps import CurrentUserId, Transaction
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
    from_: Annotated[
        Day | None, Query(alias="from", description="The first UTC day; without it, 30 days up to `to`.")
    ] = None,
    to: Annotated[Day | None, Query(description="The last UTC day, itself included; without it, today.")] = None,
) -> UsageOut:
    """Cost and tokens of the user's model calls: per day and model, and per build. A call counts on the day on which
    it began. At most 366 days at once."""
    last = to or datetime.now(UTC).date()
    first = from_ or last - min(timedelta(days=_DAYS_SHOWN - 1), last - date.min)
    if first > last:
        raise InvalidInput(f"`from` is {first}, which is after {last}.", "from")
    if (last - first).days >= _DAYS_MAX:
        raise InvalidInput(f"From {first} to {last} are more than {_DAYS_MAX} days. Ask for fewer.", "from")
    days = [DayUsage.of(row) for row in await usage_by_day(session, user_id, first, last)]
    builds = [BuildUsage.of(row) for row in await usage_by_build(session, user_id, first, last)]
    cost = sum(day.cost_microdollars for day in days)
    return UsageOut(from_day=first, to_day=last, cost_microdollars=cost, days=days, builds=builds)
