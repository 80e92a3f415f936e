"""How much a model call may say, and how long that takes."""

from datetime import timedelta

from domain.pricing import ModelPrice

LONGEST_OUTPUT_TOKENS = 128_000
"""No call asks for more, whatever settings and price table say: the time limits of calls are made for it. It is the
longest output of the models in `domain/models.py`."""

SLOWEST_TOKENS_PER_SECOND = 128_000 / 3600
"""A model is taken to write no slower than this. The vendor's SDK expects the same: 128,000 tokens in an hour at most
(`_calculate_nonstreaming_timeout` in `anthropic/_base_client.py`)."""


def most_output(price: ModelPrice, setting: int) -> int:
    """Return the most output that a call of the model may ask for, in tokens.

    Args:
        price: the model's row of the price table.
        setting: MAX_OUTPUT_TOKENS.
    """
    return min(setting, price.max_output_tokens, LONGEST_OUTPUT_TOKENS)


def time_to_write(tokens: int) -> timedelta:
    """Return how long a slow model takes to write this many tokens."""
    return timedelta(seconds=tokens / SLOWEST_TOKENS_PER_SECOND)
