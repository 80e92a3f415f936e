"""Choose a build's model: the user's override for the role, then the plan's default, then the global fallback."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from domain.errors import UnknownModel
from domain.pricing import PriceTable

CODER = "coder"
"""The role that writes the product."""

JUDGE = "judge"
"""The role that compares it with its brief."""


class ModelChoice(BaseModel):
    """A model with how much effort it makes, and the models that answer in its place what it declines.

    In the rows of plans and users it is this as JSON, or the model's name alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    effort: str | None = Field(default=None, description="One of the model's efforts; unset: its row's.")
    fallbacks: tuple[str, ...] = Field(default=(), max_length=3, description="Tried in order. Without a name, none.")

    @classmethod
    def parse(cls, value: Any) -> "ModelChoice":
        """Read a choice as it is stored.

        Raises:
            UnknownModel: it has another form.
        """
        try:
            return cls(model=value) if isinstance(value, str) else cls.model_validate(value)
        except ValidationError as error:
            problem = error.errors()[0]
            raise UnknownModel(
                f'A model is chosen by its name, or by JSON such as {{"model": "…", "effort": "high"}}: '
                f"{'.'.join(map(str, problem['loc']))} {problem['msg']}."
            ) from None

    def as_stored(self) -> str | dict[str, Any]:
        """Return the choice as rows hold it: the model's name, or JSON if there is more to it."""
        stored = self.model_dump(mode="json", exclude_defaults=True)
        return self.model if len(stored) == 1 else stored

    def __str__(self) -> str:
        more = [f"effort {self.effort}"] if self.effort else []
        more += [f"fallbacks {', '.join(self.fallbacks)}"] if self.fallbacks else []
        return f"{self.model} ({'; '.join(more)})" if more else self.model


def label_of(model: str, *, rehearsal: bool) -> str:
    """What people are told that the model is."""
    return f"rehearsal model (standing in for {model})" if rehearsal else model


def choose_model(
    role: str,
    overrides: Mapping[str, Any],
    plan_defaults: Mapping[str, Any],
    fallback: str,
    prices: PriceTable,
    setting: str = "FALLBACK_MODEL",
) -> ModelChoice:
    """Return the choice for the role, with the effort of the price table's row if it names none.

    `setting` is where the fallback comes from.

    Raises:
        UnknownModel: a chosen model has no price, or it does not take the effort; the message names the source.
    """
    if role in overrides:
        value, source = overrides[role], "the user's override"
    elif role in plan_defaults:
        value, source = plan_defaults[role], "the plan's default"
    else:
        value, source = fallback, setting
    return check_choice(ModelChoice.parse(value), prices, f"{source} for the role {role}")


def check_choice(choice: ModelChoice, prices: PriceTable, source: str) -> ModelChoice:
    """Check a choice against the price table, and return it with its effort.

    Raises:
        UnknownModel: see `choose_model`.
    """
    for model in (choice.model, *choice.fallbacks):
        if model not in prices:
            models = ", ".join(sorted(prices))
            raise UnknownModel(
                f"{source} is {model}, which has no price. Use one of {models}, or add it to MODEL_PRICES."
            )
    price = prices[choice.model]
    if choice.effort is None:
        return choice.model_copy(update={"effort": price.effort})
    if choice.effort not in price.efforts:
        efforts = f"one of {', '.join(price.efforts)}" if price.efforts else "none"
        raise UnknownModel(f"{source}: {choice.model} does not take the effort {choice.effort}. Use {efforts}.")
    return choice
