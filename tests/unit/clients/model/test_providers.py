"""Which providers a worker opens for the models of its price table."""

import pytest

from clients.model.anthropic import AnthropicProvider
from clients.model.providers import open_providers
from domain.errors import Misconfigured
from domain.models import default_prices
from settings import Settings


async def test_the_default_models_are_anthropics() -> None:
    async with open_providers(Settings()) as providers:
        assert {name: type(provider) for name, provider in providers.items()} == {"anthropic": AnthropicProvider}


async def test_an_unknown_provider_is_refused() -> None:
    prices = default_prices()
    prices["mine"] = prices["claude-sonnet-5-5"].model_copy(update={"provider": "acme"})
    with pytest.raises(Misconfigured, match=r"mine names the provider acme, .*Set it to one of anthropic"):
        async with open_providers(Settings(model_prices=prices)):
            pass
