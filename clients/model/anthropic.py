"""Calls Anthropic's Messages API through the official SDK. An answer counts only if its stream is complete.

The SDK's own accumulator is not used: it repairs unfinished tool input and treats a stream that ends early as success.
"""

import json
from typing import Any, Self

import httpx2
from anthropic import APIConnectionError, APIStatusError, AsyncAnthropic, AsyncStream
from anthropic.types import Message, RawMessageStreamEvent

from clients.model.anthropic_errors import to_error
from clients.model.protocol import (
    BrokenStream,
    FrozenSettings,
    LostCall,
    ModelRequest,
    OnText,
    OnUsage,
    RequestSettings,
    StoredConversation,
)
from domain.answer import Answer, Block
from domain.errors import ModelCallFailed, NeedsPerson
from domain.model_choice import ModelChoice
from domain.pricing import ModelPrice, Tokens
from settings import Settings, secret_text

UPDATES_BETA = "thinking-display-updates-2026-08-18"
FALLBACK_BETA = "server-side-fallback-2026-07-01"
COMPACTION_BETA = "compact-2026-09-04"
"""Betas of the Messages API, from the SDK's `AnthropicBetaParam`."""


class AnthropicProvider:
    """Anthropic's models, or those of another server that speaks its protocol. Close it when done."""

    def __init__(self, api_key: str | None, base_url: str | None, idle_seconds: float) -> None:
        """
        Args:
            api_key: the key. None is an error only at the first call, so that a worker can start without a key.
            base_url: another server that speaks the protocol; None means the vendor's.
            idle_seconds: give up a stream that has sent nothing for this long, not even a ping.
        """
        self._sdk = AsyncAnthropic(
            api_key=api_key or "unset",
            base_url=base_url or "https://api.anthropic.com",
            max_retries=0,
            timeout=httpx2.Timeout(idle_seconds, connect=10),
        )
        self._has_key = api_key is not None

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Open the provider as it is configured."""
        return cls(secret_text(settings.anthropic_api_key), settings.anthropic_base_url, settings.stream_idle_seconds)

    async def close(self) -> None:
        """Close the connections."""
        await self._sdk.close()

    def freeze(self, price: ModelPrice, choice: ModelChoice) -> FrozenSettings:
        """Render thinking, effort and fallbacks; see `ModelProvider`."""
        parts: dict[str, object] = {}
        betas: list[str] = []
        if price.adaptive_thinking:
            # Only progress updates arrive as text then, and reasoning stays private. Other models mix nothing in.
            display = "updates" if price.progress_updates else "summarized"
            parts["thinking"] = {"type": "adaptive", "display": display}
            betas += [UPDATES_BETA] if price.progress_updates else []
        if choice.effort is not None:
            parts["output_config"] = {"effort": choice.effort}
        if choice.fallbacks:
            parts["fallbacks"] = [{"model": model} for model in choice.fallbacks]
            betas.append(FALLBACK_BETA)
        rendered = json.dumps(parts, separators=(",", ":"))[1:-1]
        return FrozenSettings(f"{rendered}," if rendered else "", ",".join(betas))

    def render(self, settings: RequestSettings, conversation: StoredConversation) -> ModelRequest:
        """Render a request; see `ModelProvider`. Stored bytes are sent as they are, between fixed text."""
        cache_control = '"cache_control":{"type":"ephemeral"},' if settings.prompt_cache else ""
        frozen = conversation.frozen
        betas, summarize = frozen.betas, ""
        if settings.summarize is not None:
            betas = ",".join(filter(None, (betas, COMPACTION_BETA)))
            compaction = {"type": "summarize", "instructions": settings.summarize}
            summarize = f'"compaction":{json.dumps(compaction)},'
        head = (
            f'{{"model":"{settings.model}","max_tokens":{settings.max_tokens},"stream":true,'
            f'{cache_control}{summarize}{frozen.settings}"system":'
        )
        prompt = (conversation.system, b',"tools":', conversation.tools, b',"messages":[')
        messages = [part for message in conversation.messages for part in (b",", message)][1:]
        # One join: a long conversation is copied once.
        return ModelRequest(b"".join((head.encode(), *prompt, *messages, b"]}")), betas)

    async def stream(self, request: ModelRequest, on_text: OnText, on_usage: OnUsage) -> Answer:
        """Make one call and read its whole stream; see `ModelProvider`."""
        if not self._has_key:
            raise NeedsPerson("ANTHROPIC_API_KEY is not set. Set it and restart the worker.", "operator")
        reader = _StreamReader()
        headers = {"content-type": "application/json"} | ({"anthropic-beta": request.betas} if request.betas else {})
        try:
            stream = await self._sdk.post(
                "/v1/messages",
                content=request.body,
                cast_to=Message,
                options={"headers": headers},
                stream=True,
                stream_cls=AsyncStream[RawMessageStreamEvent],
            )
        except APIStatusError as error:
            raise to_error(error) from error
        except (APIConnectionError, httpx2.HTTPError) as error:
            if _was_never_sent(error):
                raise ModelCallFailed(f"The model's API could not be reached: {_message_of(error)}") from error
            raise LostCall(f"The request went to the model's API, but no answer came: {_message_of(error)}") from error

        reader.request_id = stream.response.headers.get("request-id")
        try:
            async with stream:
                async for event in stream:
                    text = reader.take(event)
                    on_usage(reader.tokens, reader.request_id)
                    if text:
                        await on_text(text)
        except APIStatusError as error:
            translated = to_error(error)
            if isinstance(translated, ModelCallFailed):
                raise BrokenStream(
                    str(translated), reader.tokens, reader.request_id, translated.retry_after_seconds
                ) from error
            raise translated from error
        except (APIConnectionError, httpx2.HTTPError, httpx2.StreamError, *_MALFORMED_STREAM) as error:
            raise BrokenStream(
                f"The model's answer broke off: {_message_of(error)}", reader.tokens, reader.request_id
            ) from error
        if not reader.stopped:
            raise BrokenStream("The model's answer ended before it was complete.", reader.tokens, reader.request_id)
        try:
            return reader.answer()
        except ValueError as error:
            raise BrokenStream(
                f"The model's answer has a tool call that can't be read: {error}", reader.tokens, reader.request_id
            ) from error


class _StreamReader:
    """Assembles the events of one stream, strictly."""

    def __init__(self) -> None:
        self.request_id: str | None = None
        self.stopped = False
        self._usage: dict[str, Any] = {}
        self._stop_reason: str | None = None
        self._stop_details: dict[str, Any] | None = None
        self._blocks: dict[int, Block] = {}
        self._tool_json: dict[int, str] = {}

    @property
    def tokens(self) -> Tokens:
        """The usage reported so far. The counts in a stream are cumulative."""
        by_ttl = self._usage.get("cache_creation") or {}
        written = self._usage.get("cache_creation_input_tokens") or 0
        one_hour = by_ttl.get("ephemeral_1h_input_tokens") or 0
        return Tokens(
            input=self._usage.get("input_tokens") or 0,
            cache_write_5m=max(written - one_hour, 0),
            cache_write_1h=one_hour,
            cache_read=self._usage.get("cache_read_input_tokens") or 0,
            output=self._usage.get("output_tokens") or 0,
        )

    def take(self, event: RawMessageStreamEvent) -> str:
        """Add an event; returns the text in it."""
        match event.type:
            case "message_start":
                self._note_usage(event.message.usage.to_dict(exclude_none=True))
            case "content_block_start":
                self._blocks[event.index] = event.content_block.to_dict(exclude_none=True)
                self._tool_json[event.index] = ""
            case "content_block_delta":
                return self._take_delta(self._blocks[event.index], event.index, event.delta.to_dict())
            case "message_delta":
                self._stop_reason = event.delta.stop_reason
                if event.delta.stop_details is not None:
                    self._stop_details = event.delta.stop_details.to_dict()
                self._note_usage(event.usage.to_dict(exclude_none=True))
            case "message_stop":
                self.stopped = True
        return ""

    def answer(self) -> Answer:
        """The complete answer. Tool inputs are parsed only if the stop reason is `tool_use`: in a message that was cut
        off, a call may end anywhere, and it is never run.

        Raises:
            ValueError: the input of a tool call is not a JSON object.
        """
        if self._stop_reason == "tool_use":
            for index, block in self._blocks.items():
                if block["type"] == "tool_use":
                    block["input"] = _tool_input(block, self._tool_json[index])
        blocks = [self._blocks[index] for index in sorted(self._blocks)]
        # The API refuses blank text blocks in a request.
        kept = [block for block in blocks if block["type"] != "text" or block["text"].strip()]
        return Answer(kept, self._stop_reason, self.tokens, self.request_id, self._stop_details)

    def _note_usage(self, usage: dict[str, Any]) -> None:
        self._usage |= usage

    def _take_delta(self, block: Block, index: int, delta: dict[str, Any]) -> str:
        match delta["type"]:
            case "text_delta":
                block["text"] += delta["text"]
                return str(delta["text"])
            case "input_json_delta":
                self._tool_json[index] += delta["partial_json"]
            case "thinking_delta":
                block["thinking"] += delta["thinking"]
            case "signature_delta":
                block["signature"] = delta["signature"]
            case other:
                raise NeedsPerson(
                    f"The model's API sent something that this version does not know ({other}). Update Cofounder, then "
                    "wake the build.",
                    "operator",
                )
        return ""


_MALFORMED_STREAM = (AssertionError, ValueError, LookupError)
"""Errors of a malformed stream: the SDK raises the first for an empty body and the second for broken JSON; the third
comes from events out of order."""


def _tool_input(block: Block, streamed: str) -> dict[str, Any]:
    tool_input = json.loads(streamed) if streamed else block["input"]
    if not isinstance(tool_input, dict):
        raise ValueError("its input is not an object")
    return tool_input


def _was_never_sent(error: BaseException) -> bool:
    """Whether there was no connection to send the request over. After any later error it may have been served."""
    cause = error if isinstance(error, httpx2.HTTPError) else error.__cause__
    return isinstance(cause, (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout))


def _message_of(error: BaseException) -> str:
    return str(error) or type(error).__name__
