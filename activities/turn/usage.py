"""What the server has said so far that it will bill for a call whose text is not shown while it arrives."""

from domain.pricing import Iteration, Tokens


class CallUsage:
    """The latest count. Its methods are the callbacks of `ModelProvider.stream`."""

    def __init__(self) -> None:
        self.tokens = Tokens()
        self.request_id: str | None = None
        self.iterations: tuple[Iteration, ...] = ()
        self.has_begun = False

    def note(self, tokens: Tokens, request_id: str | None, iterations: tuple[Iteration, ...]) -> None:
        """Keep the latest count."""
        self.tokens, self.request_id, self.iterations, self.has_begun = tokens, request_id, iterations, True

    async def ignore_text(self, _: str) -> None:
        """What it says counts once it is complete."""
