"""A user's models as options of the command line."""

import json

import pytest

from cli.accounts import parse_models
from domain.errors import InvalidInput
from domain.models import default_prices


def test_model_overrides() -> None:
    prices = default_prices()
    assert parse_models(["coder=claude-opus-5-5"], prices) == {"coder": "claude-opus-5-5"}
    assert parse_models(["coder="], prices) == {"coder": None}
    with pytest.raises(InvalidInput, match="claude-haiku-5-5"):
        parse_models(["coder=gpt"], prices)
    chosen = '{"model": "claude-sonnet-5-5", "effort": "low", "fallbacks": ["claude-haiku-5-5"]}'
    assert parse_models([f"coder={chosen}"], prices) == {"coder": json.loads(chosen)}
    assert parse_models(['coder={"model": "claude-sonnet-5-5"}'], prices) == {"coder": "claude-sonnet-5-5"}
    for wrong, problem in (
        ('{"model": "claude-sonnet-5-5", "effort": "heroic"}', "does not take the effort heroic"),
        ('{"model": "claude-sonnet-5-5", "fallbacks": ["gpt"]}', "gpt, which has no price"),
        ('{"effort": "high"}', "model Field required"),
        ("{model", "is not JSON"),
    ):
        with pytest.raises(InvalidInput, match=problem):
            parse_models([f"coder={wrong}"], prices)
    for wrong in ("coder", "poet=claude-opus-5-5", "=x"):
        with pytest.raises(InvalidInput, match="ROLE=MODEL"):
            parse_models([wrong], prices)
