"""Requests to a runner that keeps running in a sandbox, as lines of JSON: see `serve` in `clients/sandbox_runner.py`.

Starting the runner for each tool call takes several times as long as most calls do. Each request here can be repeated
in the other way, so whatever goes wrong ends the session.
"""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

MOST_UNREAD = 8_000_000
"""Characters of output without an answer after which a session ends. Any program in the sandbox may write there."""


class SessionEnded(Exception):
    """The session has ended, or its runner has written something else than answers. Ask in another way."""


class RunnerSession:
    """The requests of one session. `receive` gets the runner's output, and `send` writes its input."""

    def __init__(self) -> None:
        self._answers: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._received: list[str] = []
        self._unread = 0
        self._sending = asyncio.Lock()
        self.has_ended = False

    @property
    def is_asked(self) -> bool:
        """Whether a request waits for its answer."""
        return bool(self._answers)

    async def ask(
        self,
        send: Callable[[str], Awaitable[None]],
        words: Sequence[str],
        envelope: str,
        env: Mapping[str, str],
    ) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises:
            SessionEnded: there is no answer.
        """
        number = secrets.token_hex(8)  # so that no program can write an answer to a later request in advance
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        request = {"number": number, "words": list(words), "input": envelope, "env": dict(env)}
        try:
            async with self._sending:  # a long line arrives in pieces, between which no other may come
                if self.has_ended:
                    raise SessionEnded
                await send(json.dumps(request) + "\n")
            return await answer
        finally:
            del self._answers[number]

    def receive(self, text: str) -> None:
        """Take a piece of the runner's output."""
        self._unread += len(text)
        if self._unread > MOST_UNREAD:
            self._received.clear()
            self.end()
        if self.has_ended:
            return
        self._received.append(text)
        if "\n" not in text:
            return
        *lines, rest = "".join(self._received).split("\n")
        self._received = [rest]
        for line in filter(None, lines):
            try:
                parsed = json.loads(line)
                number, value = parsed["number"], dict(parsed["answer"])
            except (ValueError, TypeError, KeyError):
                continue  # a login profile may print before the runner starts
            answer = self._answers.get(number)
            if answer is not None and not answer.done():
                answer.set_result(value)
                self._unread = len(rest)

    def end(self) -> None:
        """Let all requests fail that have no answer."""
        self.has_ended = True
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(SessionEnded())
