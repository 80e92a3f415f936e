"""What a model call costs: tokens by class, at the model's own price, in microdollars.

1 µ$ = 0.000001 USD, so a price in USD per million tokens is also a price in µ$ per token.
"""

import sys
from collections.abc import Sequence
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

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(**{name: getattr(self, name) + getattr(other, name) for name in Tokens.model_fields})


@dataclass(frozen=True)
class Iteration:
    """A part of a call: one sampling of one model. It is billed at that model's price."""

    kind: str
    """The vendor's name for it: message, fallback_message, compaction, advisor_message."""
    model: str | None
    """None: the model that was asked."""
    tokens: Tokens


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
    """A model's prices and limits; `above` replaces the prices for prompts longer than `above_prompt_tokens`.

    The defaults are for the rows that an operator adds: what every model of the protocol can do.
    """

    provider: str = Field(default="anthropic", description="Who serves the model: a row of `PROVIDERS`.")
    max_output_tokens: int = 32_000
    context_tokens: int = Field(default=200_000, ge=1000, description="The window: prompt and output together.")
    cacheable_tokens: int = Field(default=4096, ge=1, description="A shorter prompt is never cached.")
    adaptive_thinking: bool = Field(default=True, description="The model takes `thinking: adaptive`.")
    progress_updates: bool = Field(
        default=False, description="The model speaks between tool calls in progress updates (`thinking.display`)."
    )
    effort: str | None = Field(default=None, description="The effort that is sent; unset leaves it to the vendor.")
    efforts: tuple[str, ...] = Field(default=(), description="The efforts that the model takes.")
    system_notices: bool = Field(
        default=False, description="The model takes messages of the role `system` in a conversation."
    )
    compacts: bool = Field(default=False, description="The API can compact a conversation with this model.")
    compact_at: int = Field(default=150_000, ge=1000, description="Compact a conversation of this many tokens.")
    above_prompt_tokens: int | None = None
    above: Price | None = Field(default=None)

    def at(self, prompt_tokens: int) -> Price:
        """Return the prices for a prompt of this length."""
        if self.above and self.above_prompt_tokens is not None and prompt_tokens > self.above_prompt_tokens:
            return self.above
        return self

    def dearest(self, prompt_tokens: int) -> Price:
        """Return the highest prices for a prompt of at most this length."""
        longest = self.at(prompt_tokens)
        return Price(**{name: max(getattr(self, name), getattr(longest, name)) for name in Price.model_fields})


PriceTable = dict[str, ModelPrice]


@dataclass(frozen=True)
class WorstCase:
    """The highest cost of a call: none of its prompt is in the cache, and all of it is written there.

    With fallbacks, each of the models may read the prompt and answer in full, and all of them are billed.
    """

    prompt_tokens: int
    price: Price
    fallbacks: tuple[Price, ...] = ()

    def cost(self, max_tokens: int) -> int:
        """Return the cost in µ$ with this much output, rounded up."""
        return _rounded_up(self._prompt() + max_tokens * self._output())

    def expected(self, cached_tokens: int, output_tokens: int) -> int:
        """Return the cost in µ$ if the first `cached_tokens` of the prompt are read from the cache, rounded up."""
        cached = min(cached_tokens, self.prompt_tokens)
        rest = (self.prompt_tokens - cached) * max(self.price.input, self.price.cache_write_5m)
        return _rounded_up(cached * self.price.cache_read + rest + output_tokens * self.price.output)

    def output_for(self, microdollars: int) -> int:
        """Return the tokens of output that this many µ$ pay for after the prompt."""
        if not self._output():
            return sys.maxsize
        return max(0, int((microdollars - self._prompt()) // self._output()))

    def _prompt(self) -> Decimal:
        # Requests ask only for cache writes with a lifetime of five minutes.
        chain = (self.price, *self.fallbacks)
        return self.prompt_tokens * sum((max(price.input, price.cache_write_5m) for price in chain), Decimal())

    def _output(self) -> Decimal:
        return sum((price.output for price in (self.price, *self.fallbacks)), Decimal())


def price_of(table: PriceTable, model: str) -> ModelPrice:
    """Return the model's row of the table.

    Raises:
        UnknownModel: the model is not in the table. Its price is never guessed.
    """
    if model not in table:
        models = ", ".join(sorted(table))
        raise UnknownModel(f"There is no price for the model {model}. Use one of {models}, or add it to MODEL_PRICES.")
    return table[model]


def worst_case(table: PriceTable, model: str, prompt_tokens: int, fallbacks: Sequence[str] = ()) -> WorstCase:
    """Return the worst case of a call with at most this many tokens of prompt.

    Raises:
        UnknownModel: a model is not in the table.
    """
    price, *others = (price_of(table, each).dearest(prompt_tokens) for each in (model, *fallbacks))
    return WorstCase(prompt_tokens, price, tuple(others))


def cost_microdollars(table: PriceTable, model: str, tokens: Tokens) -> int:
    """Return the cost of a call in µ$, rounded up."""
    price = price_of(table, model).at(tokens.prompt)
    exact = (
        tokens.input * price.input
        + tokens.cache_write_5m * price.cache_write_5m
        + tokens.cache_write_1h * price.cache_write_1h
        + tokens.cache_read * price.cache_read
        + tokens.output * price.output
    )
    return _rounded_up(exact)


def bill_microdollars(table: PriceTable, model: str, iterations: Sequence[Iteration]) -> int:
    """Return the cost of a call in µ$: that of its parts, each at its own model's price.

    Raises:
        UnknownModel: a model is not in the table.
    """
    return sum(cost_microdollars(table, each.model or model, each.tokens) for each in iterations)


def _rounded_up(microdollars: Decimal) -> int:
    return int(microdollars.to_integral_value(ROUND_CEILING))
