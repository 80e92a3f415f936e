"""The script of a benchmark's builds: one tool call a turn, on the text of real source files.

Odd turns write a piece of text to a file, even turns print one. A pause before and after lets the benchmark read a
process's usage while it is idle.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

Step = dict[str, Any]

PIECE_CHARACTERS = 4200
"""Characters of source text in each turn. With its envelope a turn adds a little more than 4 KB to the conversation."""

PAUSE_SECONDS = 1.5
"""Default length of the pause before the turns and of the rest after them, in seconds."""

_SOURCES = ("domain", "workflows", "activities", "clients", "db", "api")


def script(turns: int, *, pause: float = PAUSE_SECONDS, rest: float = PAUSE_SECONDS) -> dict[str, Any]:
    """Return a script for the rehearsal model: `turns` turns between two idle turns.

    Args:
        turns: how many turns make a call on source text.
        pause: seconds of the idle turn before them; 0 leaves it out.
        rest: seconds of the idle turn after them.
    """
    before = [[_sleep(pause)]] if pause else []
    return {"kind": "steps", "turns": [*before, *_turns(turns), [_sleep(rest)]]}


def _sleep(seconds: float) -> Step:
    return _bash(f"sleep {seconds}")


def _turns(count: int) -> list[Sequence[Step]]:
    text = _text()
    turns: list[Sequence[Step]] = []
    for number in range(count):
        path = f"src/part_{number // 2 % 40}.py"
        if number % 2 == 0:
            start = number * PIECE_CHARACTERS % (len(text) - PIECE_CHARACTERS)
            content = text[start : start + PIECE_CHARACTERS]
            call = {"tool": "write_file", "input": {"file_path": path, "content": content}}
        else:
            call = _bash(f"cat {path} # step {number + 1}")
        turns.append([{"text": f"In step {number + 1} I go on with {path}."}, call])
    return turns


def _bash(command: str) -> Step:
    return {"tool": "bash", "input": {"command": command, "timeout_ms": None}}


def _text() -> str:
    """Return this program's own source, which compresses about as well as a product's files."""
    top = Path(__file__).parent.parent
    files = [path for folder in _SOURCES for path in sorted((top / folder).rglob("*.py"))]
    return "".join(path.read_text() for path in files)
