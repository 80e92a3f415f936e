"""Budget arithmetic: days are UTC, money is in microdollars."""

import calendar
from datetime import UTC, date, datetime, time, timedelta

from pydantic import BaseModel, ConfigDict


class BudgetState(BaseModel):
    """What a user may spend on a day and has spent; `allowance` is None for an unlimited plan."""

    model_config = ConfigDict(frozen=True)

    allowance: int | None
    spent: int

    @property
    def exhausted(self) -> bool:
        """Whether no further call may be made today."""
        return self.allowance is not None and self.spent >= self.allowance


def cycle_of(day: date, renewal_day: int) -> tuple[date, date]:
    """First day of the billing cycle that `day` is in, and the day on which the next one begins.

    A renewal day that a month does not have falls on the month's last day.
    """

    def renewal(year: int, month: int) -> date:
        return date(year, month, min(renewal_day, calendar.monthrange(year, month)[1]))

    def following(start: date) -> date:
        year, month = (start.year + 1, 1) if start.month == 12 else (start.year, start.month + 1)
        return renewal(year, month)

    this_month = renewal(day.year, day.month)
    if day >= this_month:
        return this_month, following(this_month)
    year, month = (day.year - 1, 12) if day.month == 1 else (day.year, day.month - 1)
    return renewal(year, month), this_month


def daily_allowance(cycle_budget: int | None, spent_before_today: int, day: date, renewal_day: int) -> int | None:
    """What may be spent on `day`: the rest of the cycle's budget over its remaining days, today included.

    Args:
        cycle_budget: µ$ per cycle; None is unlimited.
        spent_before_today: µ$ spent in the cycle before `day`.
    """
    if cycle_budget is None:
        return None
    _, renews = cycle_of(day, renewal_day)
    return max(0, cycle_budget - spent_before_today) // (renews - day).days


def next_utc_midnight(now: datetime) -> datetime:
    """The start of the UTC day after `now`."""
    return datetime.combine(now.astimezone(UTC).date() + timedelta(days=1), time(), UTC)
