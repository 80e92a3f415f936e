"""What model calls cost."""

import pytest

from domain.errors import UnknownModel
from domain.models import default_prices
from domain.pricing import Tokens, cost_microdollars


def test_sonnet_reads_its_cache_at_a_twentieth_of_its_input() -> None:
    """0.05x since 7 October 2026; 0.1x would book cached turns at twice their price."""
    million_read = Tokens(cache_read=1_000_000)
    assert cost_microdollars(default_prices(), "claude-sonnet-5-5", million_read) == 100_000


def test_cost_prices_each_class() -> None:
    tokens = Tokens(input=1000, cache_write_5m=1000, cache_write_1h=1000, cache_read=1000, output=1000)
    # 2 + 2.5 + 4 + 0.1 + 10 USD per million, a thousand tokens each
    assert cost_microdollars(default_prices(), "claude-sonnet-5-5", tokens) == 18_600


def test_cost_of_a_long_prompt() -> None:
    prices = default_prices()
    assert cost_microdollars(prices, "claude-haiku-5-5", Tokens(input=100_000)) == 10_000
    assert cost_microdollars(prices, "claude-haiku-5-5", Tokens(input=100_001)) == 50_001
    assert cost_microdollars(prices, "claude-haiku-5-5", Tokens(output=1)) == 1  # rounded up


def test_an_unknown_model_is_no_guess() -> None:
    with pytest.raises(UnknownModel, match="MODEL_PRICES"):
        cost_microdollars(default_prices(), "claude-unheard-of", Tokens())
