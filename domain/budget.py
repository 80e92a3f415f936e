"""Budget arithmetic: days are UTC, money is in microdollars.

A build may spend a day's allowance, and up to a tenth more to wind down its work; no call may exceed that.
"""

import calendar
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from domain.pricing import WorstCase

WIND_DOWN_PERCENT = 90
"""A build winds down once this share of the allowance is used."""

CEILING_PERCENT = 110
"""A call that could exceed this share of the allowance is never made."""

WIND_DOWN_TURNS = 3
"""Turns that the agent has left once it has been told to wind down."""

WIND_DOWN_GROWTH_TOKENS = 12_000
"""Tokens by which a prompt is taken to grow during a wind-down."""

LOOK_AHEAD_OUTPUT_TOKENS = 8000
"""Output of the last call of a wind-down, in the look-ahead. The call itself may have as much as its money pays for."""

EXPECTED_OUTPUT_TOKENS = 4000
"""The least output that the look-ahead expects of a call; more if the build's last calls had more."""

USEFUL_OUTPUT_TOKENS = 4000
"""A call that can afford less output than this is not worth making: a model that always thinks would be cut off."""


class Level(StrEnum):
    """The colour in which a used share of the allowance is displayed."""

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"


class Verdict(StrEnum):
    """Whether a call may be made."""

    GO = "go"
    BUSY = "busy"
    """It fits only if open calls cost less than their worst case: ask again in a moment."""
    EXHAUSTED = "exhausted"
    """It could exceed the ceiling of today's allowance."""
    TOO_SMALL = "too_small"
    """It could exceed the ceiling of a day on which nothing was spent."""
    FLEET_EXHAUSTED = "fleet_exhausted"
    """It could exceed what all builds together may spend today."""


class Permission(BaseModel):
    """Whether a call may be made. With GO: up to `max_tokens` of output, for which `reserved` µ$ are reserved."""

    model_config = ConfigDict(frozen=True)

    verdict: Verdict
    max_tokens: int = 0
    reserved: int = 0


class BudgetState(BaseModel):
    """What a user may spend on a day, has spent, and has reserved for open calls, in µ$.

    `allowance` is None for an unlimited plan.
    """

    model_config = ConfigDict(frozen=True)

    allowance: int | None
    spent: int
    reserved: int = 0

    @property
    def ceiling(self) -> int | None:
        """The total that no call may exceed, in µ$; None for an unlimited plan."""
        return None if self.allowance is None else self.allowance * CEILING_PERCENT // 100

    @property
    def percent(self) -> int | None:
        """The used share of the allowance in percent, reservations included; None for an unlimited plan."""
        if self.allowance is None:
            return None
        return (self.spent + self.reserved) * 100 // self.allowance if self.allowance else 100

    @property
    def level(self) -> Level:
        """The colour of that share: green up to 60 %, yellow up to 90 %, red above."""
        percent = self.percent or 0
        return Level.GREEN if percent <= 60 else Level.YELLOW if percent <= WIND_DOWN_PERCENT else Level.RED

    def permit(self, call: WorstCase, max_tokens: int) -> Permission:
        """Decide whether a call may be made, and how much output it may have."""
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

    def winds_down(self, call: WorstCase, max_tokens: int, expected: int | None = None) -> bool:
        """Whether the build must wind down: 90 % are used, or the turns of a wind-down may not fit under the ceiling.

        The look-ahead counts the last of them at its worst and the others at what they are expected to cost. If the
        cache is lost meanwhile, `permit` stops the build before the ceiling, without a handoff note.

        Args:
            call: the worst case of the next call.
            max_tokens: the most output that a call may have.
            expected: what the next call costs in µ$ if the cache holds; None if it is cold.
        """
        if self.allowance is None or self.ceiling is None:
            return False
        used = self.spent + self.reserved
        output = min(max_tokens, LOOK_AHEAD_OUTPUT_TOKENS)
        last = replace(call, prompt_tokens=call.prompt_tokens + WIND_DOWN_GROWTH_TOKENS).cost(output)
        each = call.cost(output) if expected is None else min(expected, call.cost(output))
        return used * 100 >= self.allowance * WIND_DOWN_PERCENT or used + WIND_DOWN_TURNS * each + last > self.ceiling


class WindDown(BaseModel):
    """The day and the allowance of the last time that a build wound down or reached the ceiling."""

    model_config = ConfigDict(frozen=True)

    day: date
    allowance: int | None


def may_continue(
    state: BudgetState, day: date, call: WorstCase, max_tokens: int, last_wind_down: WindDown | None
) -> Verdict:
    """Decide whether a build that was stopped by its budget may continue.

    On a new day, or with another allowance, it is enough that one call fits. Otherwise there must be money for more
    than another wind-down; if not, each wake would only start one.
    """
    verdict = state.permit(call, max_tokens).verdict
    if verdict in (Verdict.TOO_SMALL, Verdict.EXHAUSTED):
        return verdict
    same = last_wind_down is not None and (last_wind_down.day, last_wind_down.allowance) == (day, state.allowance)
    return Verdict.EXHAUSTED if same and state.winds_down(call, max_tokens) else Verdict.GO


def cycle_of(day: date, renewal_day: int) -> tuple[date, date]:
    """Return the first day of the billing cycle that `day` is in, and the day on which the next one begins.

    If a month is shorter than the renewal day, its last day counts.
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
    """Return what may be spent on `day`, without top-ups of that day: what is left, spread over the days left.

    The days left include `day`.

    Args:
        cycle_budget: µ$ of the plan and of top-ups before `day` in the cycle; None for an unlimited plan.
        spent_before_today: µ$ spent in the cycle before `day`.
    """
    if cycle_budget is None:
        return None
    _, renews = cycle_of(day, renewal_day)
    return max(0, cycle_budget - spent_before_today) // (renews - day).days


def dollars(microdollars: int) -> str:
    """Format an amount for people: in cents, with more digits if cents would round it away."""
    amount = microdollars / 1_000_000
    return f"${amount:.2f}" if amount >= 0.1 or not microdollars else f"${amount:.4f}"


def too_small(state: BudgetState, call: WorstCase, max_tokens: int, renews_on: date) -> str:
    """Return the reason for a founder whose whole daily allowance does not pay for one call of the build."""
    least = call.cost(min(max_tokens, USEFUL_OUTPUT_TOKENS))
    return (
        f"Today's allowance is {dollars(state.allowance or 0)}, but the smallest useful call of this build may cost "
        f"{dollars(least)}. A bigger plan or a top-up lets the build continue at once; otherwise it tries again on "
        f"{renews_on:%Y-%m-%d}, when your next billing cycle begins."
    )


def morning_delay(build_id: UUID, window_seconds: int) -> timedelta:
    """Return how long after midnight a build wakes: always the same time, spread over the window by the build's id.

    Args:
        window_seconds: the longest delay, exclusive; 0 for none.
    """
    return timedelta(seconds=build_id.int % window_seconds if window_seconds > 0 else 0)


def next_utc_midnight(now: datetime) -> datetime:
    """Return the start of the UTC day after `now`."""
    return datetime.combine(now.astimezone(UTC).date() + timedelta(days=1), time(), UTC)
