"""A call of the model has the time that its answer takes, however slowly it is written."""

from datetime import timedelta

import pytest
from annotated_types import Le
from anthropic import Anthropic

from activities import compact
from domain.compaction import SUMMARY_OUTPUT_TOKENS
from domain.models import default_prices
from domain.output_limits import LONGEST_OUTPUT_TOKENS, SLOWEST_TOKENS_PER_SECOND, most_output, time_to_write
from domain.pricing import ModelPrice
from settings import Settings
from workflows import policies

PRICES = default_prices()
LONGEST_PATIENCE = next(
    timedelta(seconds=float(str(limit.le)))
    for limit in Settings.model_fields["model_rate_patience_seconds"].metadata
    if isinstance(limit, Le)
)
"""A turn's activity waits at most this long before it makes its call."""


@pytest.mark.parametrize("model", [*PRICES, "a row of an operator"])
def test_a_turn_has_the_time_for_the_longest_answer_of_its_model(model: str) -> None:
    price = PRICES.get(model) or PRICES["claude-sonnet-5-5"].model_copy(update={"max_output_tokens": 1_000_000})
    asked = most_output(price, 10**9)
    assert LONGEST_PATIENCE + time_to_write(asked) <= policies.THINK["start_to_close_timeout"]


def test_a_summary_has_the_time_that_it_takes() -> None:
    waiting = timedelta(seconds=compact._RATE_PATIENCE_SECONDS)
    assert waiting + time_to_write(SUMMARY_OUTPUT_TOKENS) <= policies.COMPACT["start_to_close_timeout"]


def test_the_slowest_rate_is_the_one_that_the_vendors_sdk_expects() -> None:
    """The SDK refuses a request without a stream that it expects to take more than ten minutes."""
    with Anthropic(api_key="unset") as sdk:
        ten_minutes = int(600 * SLOWEST_TOKENS_PER_SECOND)
        sdk._calculate_nonstreaming_timeout(ten_minutes, None)
        with pytest.raises(ValueError, match="longer than 10 minutes"):
            sdk._calculate_nonstreaming_timeout(ten_minutes + 1, None)


@pytest.mark.parametrize(
    ("setting", "of_model", "most"),
    [(64_000, 128_000, 64_000), (64_000, 32_000, 32_000), (500_000, 300_000, LONGEST_OUTPUT_TOKENS)],
)
def test_the_setting_the_model_and_the_time_limit_the_output(setting: int, of_model: int, most: int) -> None:
    price: ModelPrice = PRICES["claude-sonnet-5-5"].model_copy(update={"max_output_tokens": of_model})
    assert most_output(price, setting) == most
