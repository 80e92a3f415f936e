"""The choice of a model."""

import pytest

from domain.errors import UnknownModel
from domain.model_choice import choose_model
from settings import default_prices


def test_model_choice_goes_from_override_to_plan_to_fallback() -> None:
    prices, plan = default_prices(), {"coder": "claude-sonnet-5-5"}
    opus, haiku = "claude-opus-5-5", "claude-haiku-5-5"
    assert choose_model("coder", {"coder": opus}, plan, haiku, prices) == opus
    assert choose_model("coder", {"designer": opus}, plan, haiku, prices) == "claude-sonnet-5-5"
    assert choose_model("coder", {}, {}, haiku, prices) == haiku
    with pytest.raises(UnknownModel, match="the user's override for the role coder is gpt"):
        choose_model("coder", {"coder": "gpt"}, plan, haiku, prices)
