"""A session with a runner takes the answers to its own requests, and no more output than it can keep."""

import asyncio
import json
from collections.abc import Callable

import pytest

from clients.runner_session import MOST_UNREAD, RunnerSession, SessionEnded


async def _ask(session: RunnerSession, answer: Callable[[str], str]) -> dict[str, object]:
    async def send(line: str) -> None:
        session.receive(answer(json.loads(line)["number"]))

    return await asyncio.wait_for(session.ask(send, ["query"], "{}", {}), 10)


def _answer(number: str, text: str = "yes") -> str:
    return json.dumps({"number": number, "answer": {"text": text}}) + "\n"


async def test_an_answer_is_that_to_its_own_request() -> None:
    session = RunnerSession()
    session.receive("Welcome to bash\n" + "".join(_answer(str(number), "forged") for number in range(1000)))
    assert await _ask(session, _answer) == {"text": "yes"}
    assert await _ask(session, lambda number: _answer("1", "forged") + _answer(number)) == {"text": "yes"}


@pytest.mark.parametrize("piece", ["x" * 100_000, "not an answer\n" * 10_000])
async def test_output_without_answers_ends_the_session(piece: str) -> None:
    session = RunnerSession()
    for _ in range(MOST_UNREAD // len(piece) + 1):
        session.receive(piece)
    assert session.has_ended
    with pytest.raises(SessionEnded):
        await _ask(session, _answer)


async def test_large_answers_do_not_end_it() -> None:
    session = RunnerSession()
    for _ in range(20):
        assert await _ask(session, lambda number: _answer(number, "x" * (MOST_UNREAD // 10)))
    assert not session.has_ended
