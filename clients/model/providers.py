"""The providers of models, and which of them a worker opens.

To add one, write a module with a class that keeps `ModelProvider`, and give it a row in `PROVIDERS`.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from clients.model.anthropic import AnthropicProvider
from clients.model.protocol import ModelProvider, Providers
from domain.errors import Misconfigured
from domain.pricing import PriceTable
from settings import Settings

PROVIDERS: dict[str, Callable[[Settings], ModelProvider]] = {
    "anthropic": AnthropicProvider.from_settings,
}
"""How each provider is opened, by the name that `ModelPrice.provider` gives it. A missing key is no error yet."""


def check_providers(prices: PriceTable) -> None:
    """Check that every model of the price table has a provider.

    Raises:
        Misconfigured: one names a provider that does not exist.
    """
    for model, price in prices.items():
        if price.provider not in PROVIDERS:
            raise Misconfigured(
                f"MODEL_PRICES: {model} names the provider {price.provider}, which does not exist. Set it to one of "
                f"{', '.join(sorted(PROVIDERS))}."
            )


async def probe_providers(providers: Providers) -> None:
    """Ask every provider for something that costs nothing.

    Raises:
        ModelCallFailed: one does not answer.
    """
    for provider in providers.values():
        await provider.probe()


@asynccontextmanager
async def open_providers(settings: Settings) -> AsyncIterator[Providers]:
    """Open the providers of the models in the price table. They are closed at the end of the block.

    Raises:
        Misconfigured: a model names a provider that does not exist.
    """
    check_providers(settings.model_prices)
    async with AsyncExitStack() as closing:
        providers: dict[str, ModelProvider] = {}
        for name in sorted({price.provider for price in settings.model_prices.values()}):
            providers[name] = PROVIDERS[name](settings)
            closing.push_async_callback(providers[name].close)
        yield providers
