"""Guards between a model's answer and its tool calls: how many, whether it goes in circles, whether it is stuck."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WINDOW = 10
"""How many of the last calls are looked at."""

REPEATS = 3
"""So many equal calls in the window are a circle."""

FRUITLESS = 5
"""So many turns in a row that came to nothing (cut off, paused or empty) are enough: each of them is paid for."""


FAILURES = 3
"""So many times the same error, and the founder is asked."""

_ERRORS_REMEMBERED = 50
_ERROR_CHARACTERS = 2000
"""So much of an error's end tells it from others."""

_EXIT_CODE = re.compile(r"\[exit code -?\d+\]")
_VARYING = re.compile(
    r"0x[0-9a-f]+|\b(?=[a-f]*\d)[0-9a-f]{6,}\b"  # addresses, hashes, ids
    r"|(?:[\w.~-]{0,255}/)+[\w.~-]*"  # paths; unbounded names would take seconds in a long word without a slash
    r"|\d+"
)
_SAYS_SOMETHING = re.compile(r"[a-z]{3}")


def call_signature(name: str, given: dict[str, Any]) -> str:
    """Eight hex digits that are equal for equal calls; short, since each stands in workflow history."""
    canonical = json.dumps([name, given], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def is_repeating(recent: Sequence[str], new: Sequence[str]) -> bool:
    """Whether one of the new calls would be the third equal one among the last ten."""
    window = [*recent, *new][-WINDOW:]
    return any(window.count(signature) >= REPEATS for signature in set(new))


def remember(recent: Sequence[str], new: Sequence[str]) -> list[str]:
    """The signatures to keep for the next turn."""
    return [*recent, *new][-WINDOW:]


def error_signature(tool: str, subject: str, text: str) -> str:
    """Eight hex digits that are equal for equal errors of a tool, whatever numbers, hashes and paths vary in them.

    Args:
        subject: what the call was about. It tells errors apart where the text does not: those of a command that says
            nothing, and those of one file from those of another.
        text: the whole result.
    """
    exit_codes = _EXIT_CODE.findall(text)
    plain = _EXIT_CODE.sub("", text).replace("(no output)", "").lower()
    told = " ".join(_VARYING.sub("", plain).split())[-_ERROR_CHARACTERS:]
    about = subject if tool != "bash" or not _SAYS_SOMETHING.search(told) else ""
    canonical = json.dumps([tool, about, exit_codes[-1:], told])
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def count_errors(counted: Mapping[str, int], new: Iterable[str]) -> dict[str, int]:
    """How often each error has struck, with the new ones; the oldest kinds are forgotten."""
    counts = dict(counted)
    for signature in new:
        counts[signature] = counts.pop(signature, 0) + 1
    return dict(list(counts.items())[-_ERRORS_REMEMBERED:])


def stuck_on(counted: Mapping[str, int]) -> str | None:
    """The error that has struck so often that the founder is asked, if there is one."""
    return next((signature for signature, count in counted.items() if count >= FAILURES), None)
