"""What the builds of a benchmark say and do: one tool call a turn, over the text of real source files.

Odd turns write a piece of text as a file, even ones print it. Between two pauses, so that a process can be looked at
while it has nothing to do.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

Step = dict[str, Any]

PIECE_CHARACTERS = 4200
"""Of text in each turn; with what is around it a turn adds a little more than 4 KB to the conversation."""

PAUSE_SECONDS = 1.5

_SOURCES = ("domain", "workflows", "activities", "clients", "db", "api")


def script(turns: int, *, pause: float = PAUSE_SECONDS, rest: float = PAUSE_SECONDS) -> dict[str, Any]:
    """A script for the rehearsal model: so many turns, with a pause of seconds before them (none: 0) and a rest after
    them."""
    before = [[_sleep(pause)]] if pause else []
    return {"kind": "steps", "turns": [*before, *_turns(turns), [_sleep(rest)]]}


def _sleep(seconds: float) -> Step:
    return _bash(f"sleep {seconds}")


def _turns(count: int) -> list[Sequence[Step]]:
    text = _text()
    made: list[Sequence[Step]] = []
    for number in range(count):
        path = f"src/part_{number // 2 % 40}.py"
        if number % 2 == 0:
            start = number * PIECE_CHARACTERS % (len(text) - PIECE_CHARACTERS)
            content = text[start : start + PIECE_CHARACTERS]
            call = {"tool": "write_file", "input": {"path": path, "content": content}}
        else:
            call = _bash(f"cat {path} # step {number + 1}")
        made.append([{"text": f"In step {number + 1} I go on with {path}."}, call])
    return made


def _bash(command: str) -> Step:
    return {"tool": "bash", "input": {"command": command, "timeout_seconds": None}}


def _text() -> str:
    """This program's own source; its text compresses as that of products does."""
    top = Path(__file__).parent.parent
    files = [path for folder in _SOURCES for path in sorted((top / folder).rglob("*.py"))]
    return "".join(path.read_text() for path in files)
