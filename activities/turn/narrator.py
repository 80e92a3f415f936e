"""Narration: what the model says appears in the live feed sentence by sentence, while it is still speaking."""

from db import money, turns
from db.session import Sessions
from db.transaction import autocommit
from domain.answer import SentenceBuffer
from domain.errors import StaleClaim
from domain.events import NarrationEvent
from domain.pricing import Iteration, Tokens
from domain.text import storable


class Narrator:
    """Writes one call's narration, for as long as its attempt holds the turn, and keeps count of what the call costs.

    `add_text` and `note_usage` are the callbacks of `ModelProvider.stream`.
    """

    def __init__(self, sessions: Sessions, call: money.Call) -> None:
        self._sessions = sessions
        self._call = call
        self._sentences = SentenceBuffer()
        self.tokens = Tokens()
        """What the server has said so far that it will bill."""
        self.request_id: str | None = None
        self.iterations: tuple[Iteration, ...] = ()
        """The parts of the call that the server has named so far."""
        self.has_usage = False
        """Whether the server has begun to answer, and so to bill."""
        self.has_spoken = False
        """Whether there was any text for people."""
        self.is_stale = False
        """Whether another attempt has taken the turn. The stream is still read to its end, which tells its cost."""

    def note_usage(self, tokens: Tokens, request_id: str | None, iterations: tuple[Iteration, ...]) -> None:
        """Keep the latest count of what the server bills."""
        self.tokens, self.request_id, self.iterations, self.has_usage = tokens, request_id, iterations, True

    async def add_text(self, text: str) -> None:
        """Add a piece of text. Complete sentences go to the feed, unless another attempt has taken the turn."""
        self.has_spoken = self.has_spoken or bool(text.strip())
        if self.is_stale or not (events := self._events(self._sentences.feed(text))):
            return
        try:
            async with autocommit(self._sessions) as tx:
                await turns.narrate(tx, self._call.build_id, self._call.turn, self._call.claim, events)
        except StaleClaim:
            self.is_stale = True

    def last_events(self) -> list[NarrationEvent]:
        """The events of the unfinished sentence with which the text ended, if there is one."""
        return self._events(self._sentences.rest())

    def _events(self, sentences: list[str]) -> list[NarrationEvent]:
        claim = str(self._call.claim)
        return [NarrationEvent(text=storable(sentence), claim=claim) for sentence in sentences]
