"""Budget arithmetic."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.budget import (
    EXPECTED_OUTPUT_TOKENS,
    LOOK_AHEAD_OUTPUT_TOKENS,
    USEFUL_OUTPUT_TOKENS,
    WIND_DOWN_GROWTH_TOKENS,
    WIND_DOWN_TURNS,
    BudgetState,
    Verdict,
    cycle_of,
    daily_allowance,
    dollars,
    morning_delay,
    next_utc_midnight,
)
from domain.models import default_prices
from domain.pricing import Price, WorstCase


@pytest.mark.parametrize(
    ("day", "renewal", "cycle"),
    [
        (date(2026, 11, 20), 1, (date(2026, 11, 1), date(2026, 12, 1))),
        (date(2026, 11, 20), 20, (date(2026, 11, 20), date(2026, 12, 20))),
        (date(2026, 11, 19), 20, (date(2026, 10, 20), date(2026, 11, 20))),
        (date(2026, 1, 1), 15, (date(2025, 12, 15), date(2026, 1, 15))),
        (date(2026, 12, 31), 31, (date(2026, 12, 31), date(2027, 1, 31))),
        (date(2027, 2, 28), 31, (date(2027, 2, 28), date(2027, 3, 31))),
        (date(2027, 2, 27), 31, (date(2027, 1, 31), date(2027, 2, 28))),
        (date(2028, 2, 28), 30, (date(2028, 1, 30), date(2028, 2, 29))),
    ],
)
def test_cycle(day: date, renewal: int, cycle: tuple[date, date]) -> None:
    assert cycle_of(day, renewal) == cycle


@given(day=st.dates(date(2020, 1, 1), date(2040, 1, 1)), renewal=st.integers(1, 31))
def test_every_day_is_in_its_cycle(day: date, renewal: int) -> None:
    first, renews = cycle_of(day, renewal)
    assert first <= day < renews
    assert 28 <= (renews - first).days <= 31
    assert cycle_of(renews, renewal)[0] == renews


def test_allowance_spreads_what_is_left() -> None:
    day = date(2026, 11, 21)  # ten days left of November, today included
    assert daily_allowance(30_000_000, 20_000_000, day, 1) == 1_000_000
    assert daily_allowance(30_000_000, 40_000_000, day, 1) == 0
    assert daily_allowance(None, 40_000_000, day, 1) is None
    assert daily_allowance(30_000_000, 20_000_000, date(2026, 11, 30), 1) == 10_000_000


@pytest.mark.parametrize(
    ("day", "renewal_day", "allowance"),
    [
        (date(2026, 11, 20), 21, 31_000_000),  # renewed tomorrow: all that is left
        (date(2026, 11, 20), 20, 1_033_333),  # renewed today: a cycle of thirty days begins
        (date(2026, 2, 28), 30, 1_033_333),  # renewed today, since this month has no 30th
        (date(2026, 2, 27), 31, 31_000_000),
    ],
)
def test_allowance_at_a_renewal(day: date, renewal_day: int, allowance: int) -> None:
    assert daily_allowance(31_000_000, 0, day, renewal_day) == allowance
    assert daily_allowance(0, 0, day, renewal_day) == 0
    assert daily_allowance(None, 0, day, renewal_day) is None


_PRICE = Price.model_validate(
    {"input": "2", "output": "10", "cache_read": "0.2", "cache_write_5m": "2.5", "cache_write_1h": "4"}
)


@given(
    allowance=st.none() | st.integers(0, 1_000_000),
    spent=st.integers(0, 1_200_000),
    reserved=st.integers(0, 1_200_000),
    prompt=st.integers(0, 200_000),
    max_tokens=st.integers(1, 32_000),
)
def test_what_is_permitted(allowance: int | None, spent: int, reserved: int, prompt: int, max_tokens: int) -> None:
    state = BudgetState(allowance=allowance, spent=spent, reserved=reserved)
    call = WorstCase(prompt, _PRICE)
    given = state.permit(call, max_tokens)
    if given.verdict is Verdict.GO:
        assert min(max_tokens, USEFUL_OUTPUT_TOKENS) <= given.max_tokens <= max_tokens
        assert given.reserved == call.cost(given.max_tokens)
        assert state.ceiling is None or spent + reserved + given.reserved <= state.ceiling
        return
    assert given.reserved == 0
    alone = state.model_copy(update={"reserved": 0}).permit(call, max_tokens).verdict
    fresh = state.model_copy(update={"reserved": 0, "spent": 0}).permit(call, max_tokens).verdict
    # BUSY: it could go without the reservations of others. TOO_SMALL: it could not go on a new day either.
    assert (alone is Verdict.GO) is (given.verdict is Verdict.BUSY)
    assert given.verdict is not Verdict.BUSY or reserved > 0
    assert (fresh is Verdict.GO) is (given.verdict is not Verdict.TOO_SMALL)


_DAY_OF_DEFAULT_PLAN = 1_612_903
"""µ$: what the default plan allows on the first of 31 days."""


@pytest.mark.parametrize(
    ("prompt", "spent", "cached", "cold"),
    [
        (20_000, 0, False, False),
        (120_000, 0, False, False),
        (120_000, 400_000, False, True),
        (120_000, 1_000_000, False, True),
        (120_000, 1_250_000, True, True),
        (20_000, 1_451_612, False, True),
        (20_000, 1_451_613, True, True),  # 90 % of the allowance
    ],
)
def test_a_cached_conversation_winds_down_later(prompt: int, spent: int, cached: bool, cold: bool) -> None:
    """What the server has reported as cached is expected to be cheap, and only the last call is taken at its worst."""
    state = BudgetState(allowance=_DAY_OF_DEFAULT_PLAN, spent=spent)
    price = Price(**default_prices()["claude-sonnet-5-5"].model_dump(include=set(Price.model_fields)))
    call = WorstCase(prompt + 2000, price)
    expected = call.expected(prompt, EXPECTED_OUTPUT_TOKENS)
    assert state.winds_down(call, 64_000, expected) is cached
    assert state.winds_down(call, 64_000) is cold
    assert BudgetState(allowance=None, spent=spent).winds_down(call, 64_000) is False


@pytest.mark.parametrize("cached", [0, 60_000, None])
def test_it_winds_down_as_soon_as_its_last_call_might_not_fit(cached: int | None) -> None:
    """Three calls as expected, or at their worst if the cache is cold, and one at its worst, for which the prompt has
    grown."""
    call = WorstCase(60_000, _PRICE)
    expected = None if cached is None else call.expected(cached, EXPECTED_OUTPUT_TOKENS)
    each = call.cost(LOOK_AHEAD_OUTPUT_TOKENS) if expected is None else expected
    last = WorstCase(60_000 + WIND_DOWN_GROWTH_TOKENS, _PRICE).cost(LOOK_AHEAD_OUTPUT_TOKENS)
    fits = 1_100_000 - 3 * each - last
    for spent, winds_down in ((fits, False), (fits + 1, True)):
        state = BudgetState(allowance=1_000_000, spent=spent - 500, reserved=500)
        assert state.winds_down(call, 64_000, expected) is winds_down


@given(
    allowance=st.integers(0, 3_000_000),
    spent=st.integers(0, 3_000_000),
    reserved=st.integers(0, 1_000_000),
    prompt=st.integers(0, 200_000),
    cached=st.integers(0, 200_000),
    max_tokens=st.integers(LOOK_AHEAD_OUTPUT_TOKENS, 128_000),
)
def test_the_turns_of_a_wind_down_fit_after_a_turn_that_needed_none(
    allowance: int, spent: int, reserved: int, prompt: int, cached: int, max_tokens: int
) -> None:
    """Whatever calls may cost at most, and however long they may be."""
    state = BudgetState(allowance=allowance, spent=spent, reserved=reserved)
    call = WorstCase(prompt, _PRICE)
    expected = call.expected(cached, EXPECTED_OUTPUT_TOKENS)
    assert state.winds_down(call, max_tokens, expected) is state.winds_down(call, LOOK_AHEAD_OUTPUT_TOKENS, expected)
    if state.winds_down(call, max_tokens, expected):
        return
    later = state.model_copy(update={"spent": spent + WIND_DOWN_TURNS * expected})
    last = later.permit(WorstCase(prompt + WIND_DOWN_GROWTH_TOKENS, _PRICE), max_tokens)
    assert last.verdict is Verdict.GO
    assert last.max_tokens >= LOOK_AHEAD_OUTPUT_TOKENS


@pytest.mark.parametrize(("used", "level"), [(0, "green"), (60, "green"), (61, "yellow"), (90, "yellow"), (91, "red")])
def test_the_colours_of_a_share(used: int, level: str) -> None:
    assert BudgetState(allowance=100, spent=used - used // 2, reserved=used // 2).level == level
    assert BudgetState(allowance=None, spent=used).level == "green"
    assert BudgetState(allowance=0, spent=0).level == "red"


def test_next_midnight_is_utc() -> None:
    assert next_utc_midnight(datetime(2026, 11, 20, 23, 59, 59, tzinfo=UTC)) == datetime(2026, 11, 21, tzinfo=UTC)
    assert next_utc_midnight(datetime(2026, 11, 20, tzinfo=UTC)) == datetime(2026, 11, 21, tzinfo=UTC)


def test_a_build_always_wakes_at_the_same_time_of_the_morning() -> None:
    build = UUID(int=12_345)
    assert morning_delay(build, 0) == timedelta()
    assert morning_delay(build, 1000) == timedelta(seconds=345)


def test_mornings_are_spread_evenly() -> None:
    minutes = Counter(int(morning_delay(uuid4(), 1800).total_seconds()) // 60 for _ in range(30_000))
    assert set(minutes) == set(range(30))
    assert max(minutes.values()) < 1300, "more than 30 % above the mean"


def test_dollars_have_the_digits_that_they_need() -> None:
    amounts = [dollars(amount) for amount in (0, 1_234_567, 100_000, 12_345)]
    assert amounts == ["$0.00", "$1.23", "$0.10", "$0.0123"]
