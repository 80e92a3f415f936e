"""What model calls cost."""

import pytest

from domain.errors import UnknownModel
from domain.models import default_prices
from domain.pricing import Iteration, Tokens, bill_microdollars, cost_microdollars, worst_case


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


def test_the_worst_case_of_a_call_is_that_of_each_model_that_may_answer_it() -> None:
    """A model that declines in mid-answer is billed, and so is the one that goes on in its place."""
    prices = default_prices()
    alone = worst_case(prices, "claude-sonnet-5-5", 1000)
    chain = worst_case(prices, "claude-sonnet-5-5", 1000, ["claude-opus-5-5"])
    assert alone.cost(100) == 1000 * 5 // 2 + 100 * 10
    assert chain.cost(100) == alone.cost(100) + 1000 * 5 + 100 * 20
    assert chain.output_for(chain.cost(100)) == 100
    parts = [Iteration("message", None, Tokens(input=1000, output=100))]
    parts += [Iteration("fallback_message", "claude-opus-5-5", Tokens(cache_write_5m=1000, output=100))]
    assert bill_microdollars(prices, "claude-sonnet-5-5", parts) <= chain.cost(100)
    with pytest.raises(UnknownModel):
        worst_case(prices, "claude-sonnet-5-5", 1000, ["claude-unheard-of"])
