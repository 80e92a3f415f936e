"""Guards between a model's answer and its tool calls: does the agent repeat itself, or is it stuck on an error?"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WINDOW = 10
"""The number of recent calls in which repeats are counted."""

REPEATS = 3
"""The agent goes in circles if the window has this many equal calls."""

FRUITLESS = 5
"""Stop after this many turns in a row without a usable answer (cut off, paused or empty): each of them costs money."""

SILENT = 5
"""Remind the agent to speak after this many turns in a row in which its founder heard nothing."""

FAILURES = 3
"""Ask the founder after the same error has occurred this many times."""

_ERRORS_REMEMBERED = 50
_ERROR_CHARACTERS = 2000
"""Characters at the end of an error by which it is compared with others."""

_EXIT_CODE = re.compile(r"\[exit code -?\d+\]")
_VARYING = re.compile(
    r"0x[0-9a-f]+|\b(?=[a-f]*\d)[0-9a-f]{6,}\b"  # addresses, hashes, ids
    r"|(?:[\w.~-]{0,255}/)+[\w.~-]*"  # paths; unbounded names would take seconds in a long word without a slash
    r"|\d+"
)
_SAYS_SOMETHING = re.compile(r"[a-z]{3}")


def call_signature(name: str, tool_input: dict[str, Any]) -> str:
    """Return eight hex digits, equal for equal calls. Short, because workflow history holds one for each call."""
    canonical = json.dumps([name, tool_input], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def is_repeating(recent: Sequence[str], new: Sequence[str]) -> bool:
    """Whether one of the new calls is the third equal one among the last ten."""
    window = [*recent, *new][-WINDOW:]
    return any(window.count(signature) >= REPEATS for signature in set(new))


def remember(recent: Sequence[str], new: Sequence[str]) -> list[str]:
    """Return the signatures to keep for the next turn."""
    return [*recent, *new][-WINDOW:]


def error_signature(tool: str, subject: str, text: str) -> str:
    """Return eight hex digits, equal for errors of a tool that differ only in numbers, hashes and paths.

    Args:
        subject: what the call was about. It tells errors apart if the text does not: those of a command that prints
            nothing, and those of different files.
        text: the whole result.
    """
    exit_codes = _EXIT_CODE.findall(text)
    plain = _EXIT_CODE.sub("", text).replace("(no output)", "").lower()
    normalized = " ".join(_VARYING.sub("", plain).split())[-_ERROR_CHARACTERS:]
    about = subject if tool != "bash" or not _SAYS_SOMETHING.search(normalized) else ""
    canonical = json.dumps([tool, about, exit_codes[-1:], normalized])
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def count_errors(counted: Mapping[str, int], new: Iterable[str]) -> dict[str, int]:
    """Add the new errors to the counts; only the 50 most recent kinds are kept."""
    counts = dict(counted)
    for signature in new:
        counts[signature] = counts.pop(signature, 0) + 1
    return dict(list(counts.items())[-_ERRORS_REMEMBERED:])


def stuck_on(counted: Mapping[str, int]) -> str | None:
    """Return an error that has occurred `FAILURES` times, so that the founder must be asked, or None."""
    return next((signature for signature, count in counted.items() if count >= FAILURES), None)
