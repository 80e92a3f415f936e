"""The choice of a model."""

import pytest

from domain.errors import UnknownModel
from domain.model_choice import choose_model
from domain.models import default_prices


def test_model_choice_goes_from_override_to_plan_to_fallback() -> None:
    prices, plan = default_prices(), {"coder": "claude-sonnet-5-5"}
    opus, haiku = "claude-opus-5-5", "claude-haiku-5-5"
    assert choose_model("coder", {"coder": opus}, plan, haiku, prices).model == opus
    assert choose_model("coder", {"designer": opus}, plan, haiku, prices).model == "claude-sonnet-5-5"
    assert choose_model("coder", {}, {}, haiku, prices).model == haiku
    with pytest.raises(UnknownModel, match="the user's override for the role coder is gpt"):
        choose_model("coder", {"coder": "gpt"}, plan, haiku, prices)


def test_a_plan_may_name_effort_and_fallbacks() -> None:
    prices = default_prices()
    named = {"coder": {"model": "claude-opus-5-5", "effort": "low", "fallbacks": ["claude-sonnet-5-5"]}}
    choice = choose_model("coder", {}, named, "", prices)
    assert (choice.model, choice.effort, choice.fallbacks) == ("claude-opus-5-5", "low", ("claude-sonnet-5-5",))
    assert choose_model("coder", {}, {}, "claude-opus-5-5", prices).effort == "medium", "the row's own"


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ({"model": "claude-opus-5-5", "effort": "heroic"}, "does not take the effort heroic"),
        ({"model": "claude-opus-5-5", "fallbacks": ["gpt"]}, "gpt, which has no price"),
        ({"name": "claude-opus-5-5"}, "chosen by its name"),
        (7, "chosen by its name"),
    ],
)
def test_a_choice_that_cannot_be_used(value: object, match: str) -> None:
    with pytest.raises(UnknownModel, match=match):
        choose_model("coder", {}, {"coder": value}, "", default_prices())
