"""Budget arithmetic: days are UTC, money is in microdollars.

A day's allowance is what may be spent; a call may pass it by a tenth, so that work can be wound down, and never more.
"""

import calendar
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from domain.pricing import WorstCase

WIND_DOWN_PERCENT = 90
"""From this share of the allowance on, a build winds down."""

CEILING_PERCENT = 110
"""A call that would pass this share of the allowance is never made."""

WIND_DOWN_CALLS = 4
"""A build also winds down when so many worst cases no longer fit: the call at hand, and those of the wind-down."""

WIND_DOWN_TURNS = 3
"""So many turns an agent has after it was told to wind down."""

USEFUL_OUTPUT_TOKENS = 1000
"""A call that may not say so much is not worth making."""


class Level(StrEnum):
    """How a share of the allowance is shown."""

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"


class Verdict(StrEnum):
    """Whether a call may be made."""

    GO = "go"
    BUSY = "busy"
    """It would fit if calls that are being made came to less than their worst case: ask again in a moment."""
    EXHAUSTED = "exhausted"
    """It would pass the ceiling of today's allowance."""
    TOO_SMALL = "too_small"
    """It would pass the ceiling even of an untouched day."""


class Permission(BaseModel):
    """The answer to a call that asks for money. With GO: up to `max_tokens` of output, and `reserved` µ$ for it."""

    model_config = ConfigDict(frozen=True)

    verdict: Verdict
    max_tokens: int = 0
    reserved: int = 0


class BudgetState(BaseModel):
    """What a user may spend on a day, has spent, and has reserved for calls that are being made, in µ$.

    `allowance` is None for an unlimited plan.
    """

    model_config = ConfigDict(frozen=True)

    allowance: int | None
    spent: int
    reserved: int = 0

    @property
    def ceiling(self) -> int | None:
        """What no call may pass."""
        return None if self.allowance is None else self.allowance * CEILING_PERCENT // 100

    @property
    def percent(self) -> int | None:
        """Share of the allowance that is used, reservations included; None for an unlimited plan."""
        if self.allowance is None:
            return None
        return (self.spent + self.reserved) * 100 // self.allowance if self.allowance else 100

    @property
    def level(self) -> Level:
        """The colour of that share: green to 60 %, yellow to 90 %, red above."""
        percent = self.percent or 0
        return Level.GREEN if percent <= 60 else Level.YELLOW if percent <= WIND_DOWN_PERCENT else Level.RED

    def permit(self, call: WorstCase, max_tokens: int) -> Permission:
        """Whether a call may be made, and with how much output at most."""
        ceiling = self.ceiling
        if ceiling is None:
            return Permission(verdict=Verdict.GO, max_tokens=max_tokens, reserved=call.cost(max_tokens))
        useful = min(max_tokens, USEFUL_OUTPUT_TOKENS)
        least = call.cost(useful)
        if least > ceiling:
            return Permission(verdict=Verdict.TOO_SMALL)
        if self.spent + least > ceiling:
            return Permission(verdict=Verdict.EXHAUSTED)
        left = ceiling - self.spent - self.reserved
        if least > left:
            return Permission(verdict=Verdict.BUSY)
        affordable = min(max_tokens, max(useful, call.output_for(left)))
        return Permission(verdict=Verdict.GO, max_tokens=affordable, reserved=call.cost(affordable))

    def winds_down(self, call: WorstCase, max_tokens: int) -> bool:
        """Whether it is time to finish: 90 % are used, or the next four worst cases would pass the ceiling."""
        if self.allowance is None or self.ceiling is None:
            return False
        used = self.spent + self.reserved
        return (
            used * 100 >= self.allowance * WIND_DOWN_PERCENT
            or used + WIND_DOWN_CALLS * call.cost(max_tokens) > self.ceiling
        )


class WindDown(BaseModel):
    """The day and the allowance with which a build last wound down or met the ceiling."""

    model_config = ConfigDict(frozen=True)

    day: date
    allowance: int | None


def may_go_on(state: BudgetState, day: date, call: WorstCase, max_tokens: int, wound: WindDown | None) -> Verdict:
    """Whether a build that was stopped by its budget may go on.

    On a new day, or with another allowance, one call that fits is enough. Otherwise there has to be money for more than
    another wind-down, or every wake would be one.
    """
    verdict = state.permit(call, max_tokens).verdict
    if verdict in (Verdict.TOO_SMALL, Verdict.EXHAUSTED):
        return verdict
    same = wound is not None and (wound.day, wound.allowance) == (day, state.allowance)
    return Verdict.EXHAUSTED if same and state.winds_down(call, max_tokens) else Verdict.GO


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
    """What may be spent on `day`, top-ups of that day aside: the rest of the cycle over its days, today included.

    Args:
        cycle_budget: µ$ of the plan and of top-ups before `day`, in the cycle; None is unlimited.
        spent_before_today: µ$ spent in the cycle before `day`.
    """
    if cycle_budget is None:
        return None
    _, renews = cycle_of(day, renewal_day)
    return max(0, cycle_budget - spent_before_today) // (renews - day).days


def dollars(microdollars: int) -> str:
    """An amount of money for people: cents, and more digits where cents would hide it."""
    amount = microdollars / 1_000_000
    return f"${amount:.2f}" if amount >= 0.1 or not microdollars else f"${amount:.4f}"


def too_small(state: BudgetState, call: WorstCase, max_tokens: int, renews_on: date) -> str:
    """What a founder is told whose whole day does not pay for one call of the build."""
    least = call.cost(min(max_tokens, USEFUL_OUTPUT_TOKENS))
    return (
        f"Today's allowance is {dollars(state.allowance or 0)}, and the smallest useful call of this build may cost "
        f"{dollars(least)}. A bigger plan or a top-up lets it go on at once; otherwise it looks again on "
        f"{renews_on:%Y-%m-%d}, when the next billing cycle begins."
    )


def next_utc_midnight(now: datetime) -> datetime:
    """The start of the UTC day after `now`."""
    return datetime.combine(now.astimezone(UTC).date() + timedelta(days=1), time(), UTC)
