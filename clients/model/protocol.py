"""What a turn needs of a model, whichever provider serves it.

Conversations are stored in the format of Anthropic's Messages API, and answers are read in it (ADR 0008). A provider
whose API has another format converts both.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from domain.answer import Answer
from domain.errors import ModelCallFailed
from domain.model_choice import ModelChoice
from domain.pricing import Iteration, ModelPrice, Tokens
from domain.rates import RateKind, Reading

OnText = Callable[[str], Awaitable[None]]
"""Called with each piece of text as it arrives."""

OnLimits = Callable[[Mapping[RateKind, Reading]], None]
"""Called once, as soon as the server has accepted the call, with what it says of its rate limits; empty if nothing."""

OnUsage = Callable[[Tokens, str | None, tuple[Iteration, ...]], None]
"""Called with the usage that the server has reported so far, its request id, and the parts of the call, if it names
them."""


class LostCall(ModelCallFailed):
    """The request was sent, but no answer came. It may have been served, and then it is billed."""


class BrokenStream(ModelCallFailed):
    """The call was accepted and then lost. `tokens` is the billed usage that the server had reported by then, and
    `iterations` are the parts that it had named."""

    def __init__(
        self,
        message: str,
        tokens: Tokens,
        request_id: str | None,
        retry_after_seconds: float | None = None,
        iterations: tuple[Iteration, ...] = (),
    ) -> None:
        super().__init__(message, retry_after_seconds)
        self.tokens = tokens
        self.request_id = request_id
        self.iterations = iterations


@dataclass(frozen=True)
class FrozenSettings:
    """What every request of a prefix says of how the model answers. It is stored with the prefix, and never changes."""

    settings: str
    """As the provider renders it."""
    betas: str = ""
    """Names of the vendor's betas that it needs, separated by commas."""


@dataclass(frozen=True)
class RequestSettings:
    """What may differ between the requests of a prefix."""

    model: str
    max_tokens: int
    prompt_cache: bool
    """The API keeps the prompt for the next request. `domain/pricing.py` expects that it does so for five minutes."""
    summarize: str | None = None
    """With a text: do not continue the conversation, but sum it up as the text says."""


@dataclass(frozen=True)
class StoredConversation:
    """A conversation as it is stored: JSON in the format of the Messages API, with its images in place."""

    system: bytes
    """The array `system`."""
    tools: bytes
    """The array `tools`; empty for none."""
    messages: tuple[bytes, ...] = ()
    """The elements of the array `messages`."""
    frozen: FrozenSettings = FrozenSettings("")


@dataclass(frozen=True)
class ModelRequest:
    """A request as it is sent."""

    body: bytes
    betas: str = ""
    max_tokens: int = 0
    """The most output that it asks for, which says how long the answer may take."""
    model: str = ""
    """The model that it asks."""


class ModelProvider(Protocol):
    """Makes the model calls of one provider. `providers.py` opens and closes it."""

    def freeze(self, price: ModelPrice, choice: ModelChoice) -> FrozenSettings:
        """Render what every request of a new prefix says of how the model answers.

        Args:
            price: the model's row of the price table, which says what it takes.
            choice: the model, its effort and its fallbacks.
        """
        ...

    def freeze_answer(self, price: ModelPrice, choice: ModelChoice, schema: Mapping[str, Any]) -> FrozenSettings:
        """Render how the model answers a single request with JSON of this schema. It has no fallbacks.

        Args:
            price: the model's row of the price table.
            choice: the model and its effort.
            schema: of the answer, in the part of JSON Schema that providers take: closed objects, no bounds.
        """
        ...

    def render(self, settings: RequestSettings, conversation: StoredConversation) -> ModelRequest:
        """Render a request as the bytes to send.

        The requests of a conversation with the same settings begin with the same bytes, so that a prompt cache works.
        """
        ...

    async def stream(
        self, request: ModelRequest, on_text: OnText, on_usage: OnUsage, on_limits: OnLimits | None = None
    ) -> Answer:
        """Make one call and read its whole stream. Makes no second attempt: Temporal does.

        Args:
            request: as rendered.
            on_text: called with each piece of text as it arrives.
            on_usage: called at each event with the usage that the server has reported so far; see `OnUsage`.
            on_limits: called with what the server says of its rate limits, if it accepts the call.

        Returns:
            The answer, only if it is complete. Its blocks and stop reason are those of the Messages API, and the input
            of each tool call is a JSON object.

        Raises:
            ModelCallFailed: the server did not accept the call; another attempt may succeed.
            RateLimited: it accepts no more calls for now.
            BrokenStream: it accepted the call, and then the stream broke; another attempt may succeed.
            LostCall: no answer came, so it may have accepted the call or not; another attempt may succeed.
            ConversationRefused: the conversation is at fault; only another one may be accepted.
            NeedsPerson: the key, the spend limit or the request is at fault; another attempt would fail, too.
        """
        ...

    async def probe(self) -> None:
        """Ask the server for something that costs nothing.

        Raises:
            ModelCallFailed: it does not answer.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


Providers = Mapping[str, ModelProvider]
"""Open providers by the name that `ModelPrice.provider` gives them."""
