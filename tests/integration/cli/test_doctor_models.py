"""`cofounder doctor` compares the price table with what the model's API says of its models."""

from checks.check import CheckContext
from checks.services import check_model
from domain.models import default_prices
from local.stack import LocalStack
from tests.harness.worker import settings_of


async def test_the_table_agrees_with_the_api(stack: LocalStack) -> None:
    result = await check_model(CheckContext(settings_of(stack, rehearsal_model=False), None))
    assert result.state == "ok", result.detail


async def test_what_the_table_says_otherwise_is_named(stack: LocalStack) -> None:
    prices = default_prices()
    prices["claude-sonnet-5-5"] = prices["claude-sonnet-5-5"].model_copy(
        update={"context_tokens": 2_000_000, "max_output_tokens": 256_000}
    )
    prices["claude-haiku-4-5"] = prices["claude-haiku-5-5"]
    settings = settings_of(stack, rehearsal_model=False, model_prices=prices)
    result = await check_model(CheckContext(settings, None))
    assert result.state == "warn"
    assert "claude-sonnet-5-5 reads 1000000 tokens, not 2000000" in result.detail
    assert "claude-sonnet-5-5 answers with 128000 tokens at most, not 256000" in result.detail
    assert "claude-haiku-4-5 reads 200000 tokens" in result.detail
