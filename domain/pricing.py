"""What a model call costs: tokens by class, at the model's own price, in microdollars.

1 µ$ = 0.000001 USD, so a price in USD per million tokens is also a price in µ$ per token.
"""

import sys
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from domain.errors import UnknownModel


class Tokens(BaseModel):
    """Tokens of one call, by class. The classes do not overlap."""

    model_config = ConfigDict(frozen=True)

    input: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    cache_read: int = 0
    output: int = 0

    @property
    def prompt(self) -> int:
        """All tokens of the prompt, cached or not."""
        return self.input + self.cache_write_5m + self.cache_write_1h + self.cache_read


_Dollars = Annotated[Decimal, Field(ge=0)]


class Price(BaseModel):
    """A model's prices in USD per million tokens."""

    model_config = ConfigDict(frozen=True)

    input: _Dollars
    output: _Dollars
    cache_read: _Dollars
    cache_write_5m: _Dollars
    cache_write_1h: _Dollars


class ModelPrice(Price):
    """A model's prices and limits; `above` replaces the prices for prompts longer than `above_prompt_tokens`."""

    max_output_tokens: int = 32_000
    adaptive_thinking: bool = Field(default=True, description="The model takes `thinking: adaptive`.")
    above_prompt_tokens: int | None = None
    above: Price | None = Field(default=None)

    def at(self, prompt_tokens: int) -> Price:
        """The prices that hold for a prompt of this length."""
        if self.above and self.above_prompt_tokens is not None and prompt_tokens > self.above_prompt_tokens:
            return self.above
        return self

    def dearest(self, prompt_tokens: int) -> Price:
        """The highest prices that may hold for a prompt of at most this length."""
        reached = self.at(prompt_tokens)
        return Price(**{name: max(getattr(self, name), getattr(reached, name)) for name in Price.model_fields})


PriceTable = dict[str, ModelPrice]


@dataclass(frozen=True)
class WorstCase:
    """The most that a call can cost: none of its prompt is in the cache, all of it is written there."""

    prompt_tokens: int
    price: Price

    def cost(self, max_tokens: int) -> int:
        """µ$ with so much output, rounded up."""
        return _rounded_up(self._prompt() + max_tokens * self.price.output)

    def output_for(self, microdollars: int) -> int:
        """Tokens of output that so many µ$ pay for, after the prompt."""
        if not self.price.output:
            return sys.maxsize
        return max(0, int((microdollars - self._prompt()) // self.price.output))

    def _prompt(self) -> Decimal:
        # A prompt is written to the cache with a lifetime of five minutes, the only one that is asked for.
        return self.prompt_tokens * max(self.price.input, self.price.cache_write_5m)


def price_of(table: PriceTable, model: str) -> ModelPrice:
    """The model's row of the table.

    Raises:
        UnknownModel: the table has none; a guess could cost somebody money.
    """
    if model not in table:
        known = ", ".join(sorted(table))
        raise UnknownModel(f"There is no price for the model {model}. Use one of {known}, or add it to MODEL_PRICES.")
    return table[model]


def worst_case(table: PriceTable, model: str, prompt_tokens: int) -> WorstCase:
    """The worst case of a call with at most so many tokens of prompt.

    Raises:
        UnknownModel: the table has no price.
    """
    return WorstCase(prompt_tokens, price_of(table, model).dearest(prompt_tokens))


def cost_microdollars(table: PriceTable, model: str, tokens: Tokens) -> int:
    """What the call cost in µ$, rounded up."""
    price = price_of(table, model).at(tokens.prompt)
    exact = (
        tokens.input * price.input
        + tokens.cache_write_5m * price.cache_write_5m
        + tokens.cache_write_1h * price.cache_write_1h
        + tokens.cache_read * price.cache_read
        + tokens.output * price.output
    )
    return _rounded_up(exact)


def _rounded_up(microdollars: Decimal) -> int:
    return int(microdollars.to_integral_value(ROUND_CEILING))
