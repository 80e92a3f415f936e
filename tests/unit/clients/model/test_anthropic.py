"""How requests to Anthropic's API are rendered, and how long their answers are waited for."""

import asyncio
import json
from time import monotonic
from typing import Any

import pytest

from clients.model import anthropic
from clients.model.anthropic import AnthropicProvider
from clients.model.protocol import BrokenStream, FrozenSettings, ModelRequest, RequestSettings, StoredConversation
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


@pytest.mark.parametrize(("max_tokens", "complete"), [(1000, True), (2, False)])
async def test_a_model_may_think_in_silence_as_long_as_its_output_takes(
    monkeypatch: pytest.MonkeyPatch, max_tokens: int, complete: bool
) -> None:
    """It sends only pings meanwhile. A thousand tokens may take 28 s, and two no longer than any other silence."""
    monkeypatch.setattr(anthropic, "_SILENCE", 0.001)
    begins: dict[str, Any] = {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}}
    stop = {"stop_reason": "end_turn"}
    ends: dict[str, Any] = {"type": "message_delta", "delta": stop, "usage": {"output_tokens": 2}}
    served = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def send(*events: dict[str, Any]) -> None:
            writer.write(b"".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in events))

        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        send(begins)
        silent_until = monotonic() + 0.5
        while monotonic() < silent_until and not writer.is_closing():
            send({"type": "ping"})
            await asyncio.sleep(0.02)
        send(ends, {"type": "message_stop"})
        writer.close()
        served.set()

    async def ignore(_: str) -> None: ...

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    provider = AnthropicProvider("a-key", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", idle_seconds=60)
    request = provider.render(RequestSettings("m", max_tokens, True), StoredConversation(b"[]", b"[]"))
    assert request == ModelRequest(request.body, "", max_tokens, "m")
    if complete:
        assert (await provider.stream(request, ignore, lambda *_: None)).stop_reason == "end_turn"
    else:
        with pytest.raises(BrokenStream, match="nothing but pings"):
            await provider.stream(request, ignore, lambda *_: None)
    await provider.close()
    await served.wait()
    server.close()
