"""How requests to Anthropic's API are rendered."""

from clients.model.anthropic import AnthropicProvider
from clients.model.protocol import RequestSettings, StoredConversation


async def test_a_request_asks_for_no_cache_if_its_settings_do_not() -> None:
    provider = AnthropicProvider(None, None, 1)
    settings = RequestSettings("a-model", 10, adaptive_thinking=False, prompt_cache=False)
    body = provider.render(settings, StoredConversation(b"[]", b"[]", (b"{}", b"{}")))
    assert body == b'{"model":"a-model","max_tokens":10,"stream":true,"system":[],"tools":[],"messages":[{},{}]}'
    await provider.close()
