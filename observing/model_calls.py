"""Counts the model calls of a worker: of turns, compactions and the judge."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import SpanKind

from clients.model.protocol import (
    BrokenStream,
    FrozenSettings,
    LostCall,
    ModelProvider,
    ModelRequest,
    OnLimits,
    OnText,
    OnUsage,
    Providers,
    RequestSettings,
    StoredConversation,
)
from domain.answer import Answer
from domain.errors import ConversationRefused, ModelCallFailed, NeedsPerson, RateLimited
from domain.model_choice import ModelChoice
from domain.pricing import Iteration, ModelPrice, Tokens
from domain.rates import RateKind, Reading
from observing import genai, metrics
from observing.activities import MODEL_SECONDS, CallTime
from observing.traces import Attributes, span

_STOP_REASONS = frozenset(
    {"end_turn", "tool_use", "max_tokens", "stop_sequence", "pause_turn", "refusal", "model_context_window_exceeded"}
)

_ERRORS: tuple[tuple[type[BaseException], str], ...] = (  # the first that fits
    (RateLimited, "rate_limited"),
    (BrokenStream, "broken"),
    (LostCall, "lost"),
    (ConversationRefused, "conversation_refused"),
    (ModelCallFailed, "failed"),
    (NeedsPerson, "needs_person"),
    (asyncio.CancelledError, "cancelled"),
)

_ANSWERED, _ERROR = "answered", "error"

OUTCOMES = frozenset({_ANSWERED, _ERROR, *(name for _, name in _ERRORS)})
"""How a call can end: the values of the label `outcome`."""


def observed(providers: Providers) -> Providers:
    """The same providers, whose calls are counted."""
    return {name: ObservedProvider(provider) for name, provider in providers.items()}


class ObservedProvider:
    """A provider whose calls are counted; see `ModelProvider` for what it does."""

    def __init__(self, provider: ModelProvider) -> None:
        self._provider = provider

    def freeze(self, price: ModelPrice, choice: ModelChoice) -> FrozenSettings:
        """See `ModelProvider`."""
        return self._provider.freeze(price, choice)

    def freeze_answer(self, price: ModelPrice, choice: ModelChoice, schema: Mapping[str, Any]) -> FrozenSettings:
        """See `ModelProvider`."""
        return self._provider.freeze_answer(price, choice, schema)

    def render(self, settings: RequestSettings, conversation: StoredConversation) -> ModelRequest:
        """See `ModelProvider`."""
        return self._provider.render(settings, conversation)

    async def stream(
        self, request: ModelRequest, on_text: OnText, on_usage: OnUsage, on_limits: OnLimits | None = None
    ) -> Answer:
        """See `ModelProvider`."""
        call = _Call(request.model)
        outcome = _ERROR

        def note_limits(limits: Mapping[RateKind, Reading]) -> None:
            call.note_first()
            if on_limits is not None:
                on_limits(limits)

        def note_usage(tokens: Tokens, request_id: str | None, parts: tuple[Iteration, ...]) -> None:
            call.tokens = tokens
            on_usage(tokens, request_id, parts)

        try:
            with span(f"{genai.CHAT} {request.model}", SpanKind.CLIENT, _request_attributes(request)) as made:
                answer = await self._provider.stream(request, on_text, note_usage, note_limits)
                made.set_attributes(_answer_attributes(answer))
            outcome, call.tokens = _ANSWERED, answer.tokens
            return answer
        except BaseException as error:
            outcome = next((name for kind, name in _ERRORS if isinstance(error, kind)), _ERROR)
            raise
        finally:
            call.end(outcome)

    async def probe(self) -> None:
        """See `ModelProvider`."""
        await self._provider.probe()

    async def close(self) -> None:
        """See `ModelProvider`."""
        await self._provider.close()


class _Call:
    """A call that is being made."""

    def __init__(self, model: str) -> None:
        self.tokens = Tokens()
        self._model = model
        self._time = MODEL_SECONDS.get() or CallTime()
        self._time.begin()
        self._began = time.monotonic()
        self._has_begun = False

    def note_first(self) -> None:
        """The server has accepted the call and begins to answer."""
        if not self._has_begun:
            self._has_begun = True
            metrics.MODEL_FIRST_CHUNK.labels(self._model).observe(time.monotonic() - self._began, self._time.exemplar)

    def end(self, outcome: str) -> None:
        """Count the call, with the tokens that are known to be billed."""
        seconds = time.monotonic() - self._began
        self._time.seconds += seconds
        metrics.MODEL_CALLS.labels(self._model, outcome).inc()
        metrics.MODEL_SECONDS.labels(self._model).observe(seconds, self._time.exemplar)
        for kind, count in self.tokens.model_dump(exclude_defaults=True).items():
            metrics.MODEL_TOKENS.labels(self._model, kind).inc(count)


def _request_attributes(request: ModelRequest) -> Attributes:
    return {
        genai.OPERATION: genai.CHAT,
        genai.PROVIDER: "anthropic",
        genai.REQUEST_MODEL: request.model,
        genai.REQUEST_MAX_TOKENS: request.max_tokens,
    }


def _answer_attributes(answer: Answer) -> Attributes:
    tokens = answer.tokens
    attributes: dict[str, str | int | list[str]] = {
        genai.INPUT_TOKENS: tokens.input,
        genai.OUTPUT_TOKENS: tokens.output,
        genai.CACHE_READ_TOKENS: tokens.cache_read,
        genai.CACHE_WRITE_TOKENS: tokens.cache_write_5m + tokens.cache_write_1h,
    }
    if answer.stop_reason in _STOP_REASONS:  # an unknown one is text of another program
        attributes[genai.RESPONSE_FINISH_REASONS] = [str(answer.stop_reason)]
    if answer.request_id is not None:
        attributes[genai.RESPONSE_ID] = answer.request_id
    return attributes
