"""Choose a build's model: the user's override for the role, then the plan's default, then the global fallback."""

from collections.abc import Mapping

from domain.errors import UnknownModel
from domain.pricing import PriceTable

CODER = "coder"
"""The role that writes the product; the only one so far."""


def choose_model(
    role: str, overrides: Mapping[str, str], plan_defaults: Mapping[str, str], fallback: str, prices: PriceTable
) -> str:
    """Return the model for the role.

    Raises:
        UnknownModel: the chosen model has no price; the message names the source of the choice.
    """
    if role in overrides:
        model, source = overrides[role], "the user's override"
    elif role in plan_defaults:
        model, source = plan_defaults[role], "the plan's default"
    else:
        model, source = fallback, "FALLBACK_MODEL"
    if model not in prices:
        models = ", ".join(sorted(prices))
        raise UnknownModel(f"{source} for the role {role} is {model}, which has no price. Known models: {models}.")
    return model
