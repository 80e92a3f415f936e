"""Calls Anthropic's Messages API through the official SDK. An answer counts only if its stream is complete.

The SDK's own accumulator is not used: it repairs unfinished tool input and treats a stream that ends early as success.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any, Self

import httpx2
from anthropic import APIConnectionError, APIStatusError, AsyncAnthropic, AsyncStream

from clients.model.answer_stream import AnswerStream
from clients.model.anthropic_errors import to_error
from clients.model.anthropic_limits import read_limits
from clients.model.protocol import (
    BrokenStream,
    FrozenSettings,
    LostCall,
    ModelRequest,
    OnLimits,
    OnText,
    OnUsage,
    RequestSettings,
    StoredConversation,
)
from domain.answer import Answer
from domain.errors import ModelCallFailed, NeedsPerson
from domain.model_choice import ModelChoice
from domain.output_limits import time_to_write
from domain.pricing import ModelPrice
from settings import Settings, secret_text

UPDATES_BETA = "thinking-display-updates-2026-08-18"
FALLBACK_BETA = "server-side-fallback-2026-07-01"
COMPACTION_BETA = "compact-2026-09-04"
"""Betas of the Messages API, from the SDK's `AnthropicBetaParam`."""


_PROBE_SECONDS = 8.0
"""Deadline in seconds of a probe of the API."""


class AnthropicProvider:
    """Anthropic's models, or those of another server that speaks its protocol. Close it when done."""

    def __init__(self, api_key: str | None, base_url: str | None, idle_seconds: float) -> None:
        """
        Args:
            api_key: the key. None is an error only at the first call, so that a worker can start without a key.
            base_url: another server that speaks the protocol; None means the vendor's.
            idle_seconds: give up a stream that has sent nothing for this long, not even a ping; and one that sends only
                pings after five times as long, or the time that a slow model takes for all that it may say.
        """
        self._idle_seconds = idle_seconds
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

    async def probe(self) -> None:
        """List the models; see `ModelProvider`. Any answer but a server's error is one."""
        try:
            await self._sdk.get("/v1/models", cast_to=object, options={"timeout": _PROBE_SECONDS})
        except APIStatusError as error:
            translated = to_error(error)
            if isinstance(translated, ModelCallFailed):
                raise translated from error
        except (APIConnectionError, httpx2.HTTPError) as error:
            raise ModelCallFailed(f"The model's API could not be reached: {_message_of(error)}") from error

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

    def freeze_answer(self, price: ModelPrice, choice: ModelChoice, schema: Mapping[str, Any]) -> FrozenSettings:
        """Render thinking, effort and the answer's schema; see `ModelProvider`."""
        output: dict[str, object] = {"format": {"type": "json_schema", "schema": schema}}
        if choice.effort is not None:
            output["effort"] = choice.effort
        parts: dict[str, object] = {"thinking": {"type": "adaptive"}} if price.adaptive_thinking else {}
        parts["output_config"] = output
        return FrozenSettings(f"{json.dumps(parts, separators=(',', ':'))[1:-1]},")

    def render(self, settings: RequestSettings, conversation: StoredConversation) -> ModelRequest:
        """Render a request; see `ModelProvider`. Stored bytes are sent as they are, between fixed text."""
        cache_control = '"cache_control":{"type":"ephemeral"},' if settings.prompt_cache else ""
        frozen = conversation.frozen
        betas, summarize = frozen.betas, ""
        if settings.summarize is not None:
            betas = ",".join(dict.fromkeys([*filter(None, betas.split(",")), COMPACTION_BETA]))
            compaction = {"type": "summarize", "instructions": settings.summarize}
            summarize = f'"compaction":{json.dumps(compaction)},'
        head = (
            f'{{"model":"{settings.model}","max_tokens":{settings.max_tokens},"stream":true,'
            f'{cache_control}{summarize}{frozen.settings}"system":'
        )
        tools = (b',"tools":', conversation.tools) if conversation.tools else ()
        prompt = (conversation.system, *tools, b',"messages":[')
        messages = [part for message in conversation.messages for part in (b",", message)][1:]
        # One join: a long conversation is copied once.
        body = b"".join((head.encode(), *prompt, *messages, b"]}"))
        return ModelRequest(body, betas, settings.max_tokens, settings.model)

    async def stream(
        self, request: ModelRequest, on_text: OnText, on_usage: OnUsage, on_limits: OnLimits | None = None
    ) -> Answer:
        """Make one call and read its whole stream; see `ModelProvider`."""
        if not self._has_key:
            raise NeedsPerson("ANTHROPIC_API_KEY is not set. Set it and restart the worker.", "operator")
        reader = AnswerStream(updates=UPDATES_BETA in request.betas)
        headers = {"content-type": "application/json"} | ({"anthropic-beta": request.betas} if request.betas else {})
        try:
            stream = await self._sdk.post(
                "/v1/messages",
                content=request.body,
                cast_to=object,
                options={"headers": headers},
                stream=True,
                stream_cls=AsyncStream[object],
            )
        except APIStatusError as error:
            raise to_error(error) from error
        except (APIConnectionError, httpx2.HTTPError) as error:
            if _was_never_sent(error):
                raise ModelCallFailed(f"The model's API could not be reached: {_message_of(error)}") from error
            raise LostCall(f"The request went to the model's API, but no answer came: {_message_of(error)}") from error

        if on_limits is not None:
            on_limits(read_limits(stream.response.headers))
        reader.request_id = stream.response.headers.get("request-id")
        try:
            async with stream:
                async for event in self._events(stream, request.max_tokens):
                    text = reader.take(event)
                    on_usage(reader.tokens, reader.request_id, reader.iterations)
                    if text:
                        await on_text(text)
        except APIStatusError as error:
            translated = to_error(error)
            if isinstance(translated, ModelCallFailed):
                raise _broken(reader, str(translated), translated.retry_after_seconds) from error
            raise translated from error
        except (APIConnectionError, httpx2.HTTPError, httpx2.StreamError, TimeoutError, *_MALFORMED_STREAM) as error:
            raise _broken(reader, f"The model's answer broke off: {_message_of(error)}") from error
        if not reader.stopped:
            raise _broken(reader, "The model's answer ended before it was complete.")
        return replace(reader.answer(), request_bytes=len(request.body))

    async def _events(self, stream: AsyncStream[object], max_tokens: int) -> AsyncIterator[Any]:
        """The events of the stream as JSON, without its pings.

        Raises:
            TimeoutError: pings are all that came for a long time.
        """
        events, longest = aiter(stream), self._longest_silence(max_tokens)
        while True:
            try:
                async with asyncio.timeout(longest):
                    event = await anext(events)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise TimeoutError(f"nothing but pings came for {longest:.0f} s") from error
            yield event

    def _longest_silence(self, max_tokens: int) -> float:
        """How many seconds a stream may send only pings: the model may be thinking all that it may say."""
        return max(self._idle_seconds * _SILENCE, time_to_write(max_tokens).total_seconds())


_MALFORMED_STREAM = (AssertionError, AttributeError, ValueError, LookupError, TypeError, RecursionError)
"""Errors of a malformed stream: the SDK raises the first for an empty body, broken JSON is a ValueError or too deep to
read, and the others come from events out of order or of another shape."""

_SILENCE = 5
"""A server that sends only pings may do so for at least this many times as long as one that sends nothing: it may be
thinking, and thoughts are not always sent."""


def _broken(reader: AnswerStream, message: str, retry_after_seconds: float | None = None) -> BrokenStream:
    return BrokenStream(message, reader.tokens, reader.request_id, retry_after_seconds, reader.iterations)


def _was_never_sent(error: BaseException) -> bool:
    """Whether there was no connection to send the request over. After any later error it may have been served."""
    cause = error if isinstance(error, httpx2.HTTPError) else error.__cause__
    return isinstance(cause, (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout))


def _message_of(error: BaseException) -> str:
    return str(error) or type(error).__name__
