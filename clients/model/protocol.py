"""What a turn needs of a model, whichever provider serves it.

Conversations are stored in the format of Anthropic's Messages API, and answers are read in it (ADR 0008). A provider
whose API has another format converts both.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from domain.answer import Answer
from domain.errors import ModelCallFailed
from domain.pricing import Tokens

OnText = Callable[[str], Awaitable[None]]
"""Called with each piece of text as it arrives."""

OnUsage = Callable[[Tokens, str | None], None]
"""Called with the usage that the server has reported so far, and its request id."""


class LostCall(ModelCallFailed):
    """The request was sent, but no answer came. It may have been served, and then it is billed."""


class BrokenStream(ModelCallFailed):
    """The call was accepted and then lost. `tokens` is the billed usage that the server had reported by then."""

    def __init__(
        self, message: str, tokens: Tokens, request_id: str | None, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message, retry_after_seconds)
        self.tokens = tokens
        self.request_id = request_id


@dataclass(frozen=True)
class RequestSettings:
    """What a request says in addition to its conversation."""

    model: str
    max_tokens: int
    adaptive_thinking: bool
    """The model decides how much it thinks, and its thoughts arrive as summaries."""
    prompt_cache: bool
    """The API keeps the prompt for the next request. `domain/pricing.py` expects that it does so for five minutes."""


@dataclass(frozen=True)
class StoredConversation:
    """A conversation as it is stored: JSON in the format of the Messages API, with its images in place."""

    system: bytes
    """The array `system`."""
    tools: bytes
    """The array `tools`."""
    messages: tuple[bytes, ...] = ()
    """The elements of the array `messages`."""


class ModelProvider(Protocol):
    """Makes the model calls of one provider. `providers.py` opens and closes it."""

    def render(self, settings: RequestSettings, conversation: StoredConversation) -> bytes:
        """Render a request as the bytes to send.

        The requests of a conversation with the same settings begin with the same bytes, so that a prompt cache works.
        """
        ...

    async def stream(self, body: bytes, on_text: OnText, on_usage: OnUsage) -> Answer:
        """Make one call and read its whole stream. Makes no second attempt: Temporal does.

        Args:
            body: the request, as rendered.
            on_text: called with each piece of text as it arrives.
            on_usage: called at each event with the usage that the server has reported so far, and its request id.

        Returns:
            The answer, only if it is complete. Its blocks and stop reason are those of the Messages API, and the input
            of each tool call is a JSON object.

        Raises:
            ModelCallFailed: the server did not accept the call; another attempt may succeed.
            BrokenStream: it accepted the call, and then the stream broke; another attempt may succeed.
            LostCall: no answer came, so it may have accepted the call or not; another attempt may succeed.
            NeedsPerson: the key, the spend limit or the request is at fault; another attempt would fail, too.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


Providers = Mapping[str, ModelProvider]
"""Open providers by the name that `ModelPrice.provider` gives them."""
