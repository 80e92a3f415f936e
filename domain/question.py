"""Questions to the founder when the agent is stuck: the problem in plain words, what it tried, and options."""

from collections.abc import Sequence
from dataclasses import dataclass

from domain.text import storable

OPTIONS = (
    "Try a different way to do it.",
    "Leave this out for now, say so in the README, and go on with the rest.",
    "Commit what works, and finish with that.",
)
"""The founder may choose one of these by its number, or answer in their own words."""

ASKED = "The agent has a question for its founder."
"""Stands for the question in a build's history, which quotes no founder; the build's row gets the question itself."""

_ERROR_FOLLOWS = " The error is:\n"

MAX_ATTEMPTS = 5
"""The most attempts that a question lists."""

_NARRATION_CHARACTERS = 200
_ERROR_CHARACTERS = 600
_REASON_CHARACTERS = 300


@dataclass(frozen=True)
class Attempt:
    """One thing that the agent tried: its narration, the call in one line, and the call's result."""

    turn: int
    narration: str
    call: str
    result: str


@dataclass(frozen=True)
class FounderQuestion:
    """A question to the founder."""

    problem: str
    tried: list[str]
    options: list[str]


@dataclass(frozen=True)
class AskedQuestion:
    """A question that the agent asks by itself. It goes on with the default, which is one of the options."""

    question: str
    options: tuple[str, ...]
    default: str


MAX_OPEN_QUESTIONS = 5
"""Unanswered questions of an agent beyond this are refused: the founder would not read them."""


def about_error(attempts: Sequence[Attempt]) -> FounderQuestion:
    """Ask about an error that keeps occurring. `attempts` are in order, and there is at least one."""
    last = attempts[-1]
    reason = storable(f"The agent has hit the same error {len(attempts)} times, most recently with `{last.call}`.")
    error = last.result.strip()
    excerpt = error if len(error) <= _ERROR_CHARACTERS else "…" + error[-_ERROR_CHARACTERS:]
    return _question(f"{reason}{_ERROR_FOLLOWS}{excerpt}", attempts)


def about_circle(attempts: Sequence[Attempt]) -> FounderQuestion:
    """Ask about a call that the agent keeps repeating, although it was steered. There is at least one attempt."""
    call = attempts[-1].call
    reason = f"The agent keeps making the same call, `{call}`, although it was told to try something else."
    return _question(reason, attempts)


def about_blocker(blocker: str) -> FounderQuestion:
    """Ask for what the agent says that it can't do without."""
    reason = f"The agent can't finish without you. It needs: {blocker}"
    return _question(reason, [])


def reason_of(problem: str) -> str:
    """The question's first sentence, for the build's status."""
    return storable(problem.partition(_ERROR_FOLLOWS)[0], _REASON_CHARACTERS)


def _question(problem: str, attempts: Sequence[Attempt]) -> FounderQuestion:
    tried = [_describe(attempt) for attempt in attempts[-MAX_ATTEMPTS:]]
    return FounderQuestion(storable(problem), tried, list(OPTIONS))


def _describe(attempt: Attempt) -> str:
    narration = storable(" ".join(attempt.narration.split()), _NARRATION_CHARACTERS)
    return f"Turn {attempt.turn}: {narration + ' — ' if narration else ''}{attempt.call}"
