"""A user's models as options of the command line."""

import pytest

from cli.accounts import parse_models
from domain.errors import InvalidInput, UnknownModel
from domain.models import default_prices


def test_model_overrides() -> None:
    prices = default_prices()
    assert parse_models(["coder=claude-opus-5-5"], prices) == {"coder": "claude-opus-5-5"}
    assert parse_models(["coder="], prices) == {"coder": None}
    with pytest.raises(UnknownModel, match="claude-haiku-5-5"):
        parse_models(["coder=gpt"], prices)
    for wrong in ("coder", "poet=claude-opus-5-5", "=x"):
        with pytest.raises(InvalidInput, match="ROLE=MODEL"):
            parse_models([wrong], prices)
