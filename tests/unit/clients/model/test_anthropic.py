"""How requests to Anthropic's API are rendered."""

import pytest

from clients.model.anthropic import AnthropicProvider
from clients.model.protocol import FrozenSettings, RequestSettings, StoredConversation
from domain.model_choice import ModelChoice
from domain.models import default_prices


async def test_a_request_asks_for_no_cache_if_its_settings_do_not() -> None:
    provider = AnthropicProvider(None, None, 1)
    settings = RequestSettings("a-model", 10, prompt_cache=False)
    request = provider.render(settings, StoredConversation(b"[]", b"[]", (b"{}", b"{}")))
    assert request.betas == ""
    assert (
        request.body == b'{"model":"a-model","max_tokens":10,"stream":true,"system":[],"tools":[],"messages":[{},{}]}'
    )
    await provider.close()


@pytest.mark.parametrize(
    ("choice", "settings", "betas"),
    [
        (
            ModelChoice(model="claude-sonnet-5-5", effort="high"),
            '"thinking":{"type":"adaptive","display":"updates"},"output_config":{"effort":"high"},',
            "thinking-display-updates-2026-08-18",
        ),
        (ModelChoice(model="claude-haiku-5-5"), '"thinking":{"type":"adaptive","display":"summarized"},', ""),
        (
            ModelChoice(model="claude-opus-5-5", fallbacks=("claude-sonnet-5-5",)),
            '"thinking":{"type":"adaptive","display":"updates"},"fallbacks":[{"model":"claude-sonnet-5-5"}],',
            "thinking-display-updates-2026-08-18,server-side-fallback-2026-07-01",
        ),
    ],
)
async def test_what_is_frozen_per_prefix(choice: ModelChoice, settings: str, betas: str) -> None:
    provider = AnthropicProvider(None, None, 1)
    assert provider.freeze(default_prices()[choice.model], choice) == FrozenSettings(settings, betas)
    await provider.close()


async def test_a_summary_is_asked_for_with_the_same_conversation() -> None:
    provider = AnthropicProvider(None, None, 1)
    conversation = StoredConversation(b"[]", b"[]", (b"{}",), FrozenSettings('"thinking":{},', "a-beta"))
    turn = provider.render(RequestSettings("m", 10, prompt_cache=True), conversation)
    summary = provider.render(RequestSettings("m", 9, prompt_cache=True, summarize="Sum up."), conversation)
    assert summary.betas == "a-beta,compact-2026-09-04"
    assert summary.body.partition(b'"thinking"')[2] == turn.body.partition(b'"thinking"')[2]
    await provider.close()
