"""What a founder is asked when the agent gets no further: the problem in plain words, what was tried, and options."""

from collections.abc import Sequence
from dataclasses import dataclass

from domain.text import storable

OPTIONS = (
    "Try a different way to do it.",
    "Leave this out for now, say so in the README, and go on with the rest.",
    "Commit what works, and finish with that.",
)
"""What a founder may answer with a number; any other answer in their own words."""

TRIED_MOST = 5
_SAID_CHARACTERS = 200
_ERROR_CHARACTERS = 600
_REASON_CHARACTERS = 300


@dataclass(frozen=True)
class Attempt:
    """One thing that the agent tried: what it said of it, the call in a line, and the call's result."""

    turn: int
    said: str
    call: str
    result: str


@dataclass(frozen=True)
class Asked:
    """A question to the founder. `reason` is its first sentence, for the build's status."""

    reason: str
    problem: str
    tried: list[str]
    options: list[str]


def about_error(attempts: Sequence[Attempt]) -> Asked:
    """The same error has struck again and again; the attempts are in order, and there is at least one."""
    last = attempts[-1]
    reason = storable(f"The agent has met the same error {len(attempts)} times, the last time with `{last.call}`.")
    error = last.result.strip()
    shown = error if len(error) <= _ERROR_CHARACTERS else "…" + error[-_ERROR_CHARACTERS:]
    return _asked(reason, f"{reason} It says:\n{shown}", attempts)


def about_circle(attempts: Sequence[Attempt]) -> Asked:
    """The agent makes the same call again and again, and was steered before; there is at least one attempt."""
    call = attempts[-1].call
    reason = f"The agent keeps making the same call, `{call}`, and gets no further; it was told to try something else."
    return _asked(reason, reason, attempts)


def _asked(reason: str, problem: str, attempts: Sequence[Attempt]) -> Asked:
    tried = [_told(attempt) for attempt in attempts[-TRIED_MOST:]]
    return Asked(storable(reason, _REASON_CHARACTERS), storable(problem), tried, list(OPTIONS))


def _told(attempt: Attempt) -> str:
    said = storable(" ".join(attempt.said.split()), _SAID_CHARACTERS)
    return f"Turn {attempt.turn}: {said + ' — ' if said else ''}{attempt.call}"
