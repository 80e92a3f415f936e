"""The models that builds can use: prices, limits and what their requests may say, in one table.

Source: Anthropic's documentation of models, prices and prompt caching, and the types of its SDK, read on `AS_OF`.
`cofounder doctor` compares the limits with what the API itself says of its models; the API does not tell prices.
"""

from datetime import date
from decimal import Decimal
from typing import TypedDict

from domain.pricing import ModelPrice, Price

AS_OF = date(2026, 11, 28)

DEFAULT_JUDGE = "claude-haiku-5-5"
"""Judges products if no one has chosen another model: the cheapest of the table."""

_EFFORTS = ("low", "medium", "high", "xhigh", "max")


class _PriceFields(TypedDict):
    """The fields of a `Price`."""

    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write_5m: Decimal
    cache_write_1h: Decimal


def _price(input_: str, output: str, cache_read: str) -> _PriceFields:
    """Prices in USD per million tokens. A cache write costs 1.25 (five minutes) or 2 times (an hour) the input."""
    base = Decimal(input_)
    return {
        "input": base,
        "output": Decimal(output),
        "cache_read": Decimal(cache_read),
        "cache_write_5m": base * Decimal("1.25"),
        "cache_write_1h": base * 2,
    }


def default_prices() -> dict[str, ModelPrice]:
    """The table that MODEL_PRICES replaces."""
    return {
        "claude-opus-5-5": ModelPrice(
            **_price("4", "20", "0.20"),
            context_tokens=1_000_000,
            max_output_tokens=128_000,
            cacheable_tokens=512,
            progress_updates=True,
            system_notices=True,
            effort="medium",
            efforts=_EFFORTS,
            compacts=True,
        ),
        "claude-sonnet-5-5": ModelPrice(
            **_price("2", "10", "0.10"),
            context_tokens=1_000_000,
            max_output_tokens=128_000,
            cacheable_tokens=512,
            progress_updates=True,
            system_notices=True,
            effort="high",
            efforts=_EFFORTS,
            compacts=True,
        ),
        "claude-haiku-5-5": ModelPrice(
            **_price("0.10", "0.50", "0.01"),
            context_tokens=1_000_000,
            max_output_tokens=128_000,
            effort="high",
            efforts=_EFFORTS,
            compacts=True,
            compact_at=90_000,  # below the step of its price, which counts for every token of a request
            above_prompt_tokens=100_000,
            above=Price(**_price("0.50", "2.50", "0.05")),
        ),
        "claude-fable-5-2": ModelPrice(
            **_price("8", "40", "0.20"),
            context_tokens=1_000_000,
            max_output_tokens=128_000,
            cacheable_tokens=512,
            progress_updates=True,
            system_notices=True,
            effort="medium",
            efforts=_EFFORTS,
        ),
    }
