"""Guards between a model's answer and its tool calls: how many, and whether it goes round in circles."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

WINDOW = 10
"""How many of the last calls are looked at."""

REPEATS = 3
"""So many equal calls in the window are a circle."""


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
