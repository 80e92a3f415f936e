"""Budget arithmetic and prices."""

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.budget import cycle_of, daily_allowance, next_utc_midnight
from domain.errors import UnknownModel
from domain.pricing import Tokens, cost_microdollars
from settings import default_prices


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


def test_next_midnight_is_utc() -> None:
    assert next_utc_midnight(datetime(2026, 11, 20, 23, 59, 59, tzinfo=UTC)) == datetime(2026, 11, 21, tzinfo=UTC)
    assert next_utc_midnight(datetime(2026, 11, 20, tzinfo=UTC)) == datetime(2026, 11, 21, tzinfo=UTC)


def test_cost_prices_each_class() -> None:
    tokens = Tokens(input=1000, cache_write_5m=1000, cache_write_1h=1000, cache_read=1000, output=1000)
    # 2 + 2.5 + 4 + 0.2 + 10 USD per million, a thousand tokens each
    assert cost_microdollars(default_prices(), "claude-sonnet-5-5", tokens) == 18_700


def test_cost_of_a_long_prompt() -> None:
    prices = default_prices()
    assert cost_microdollars(prices, "claude-haiku-5-5", Tokens(input=100_000)) == 10_000
    assert cost_microdollars(prices, "claude-haiku-5-5", Tokens(input=100_001)) == 50_001
    assert cost_microdollars(prices, "claude-haiku-5-5", Tokens(output=1)) == 1  # rounded up


def test_an_unknown_model_is_no_guess() -> None:
    with pytest.raises(UnknownModel, match="MODEL_PRICES"):
        cost_microdollars(default_prices(), "claude-unheard-of", Tokens())
