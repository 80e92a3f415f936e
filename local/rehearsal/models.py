"""The models, and how they differ on the wire."""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

DEFAULT_CACHE_MINIMUM = 1024
"""Tokens of the shortest prefix that is cached, for models not in `CACHE_MINIMUM`."""

CACHE_MINIMUM = {
    "claude-opus-5": 512,
    "claude-fable-5": 512,
    "claude-mythos-5": 512,
    "claude-opus-4-7": 2048,
    "claude-opus-4-6": 4096,
    "claude-opus-4-5": 4096,
    "claude-opus-4-5-20251101": 4096,
    "claude-haiku-4-5": 4096,
    "claude-haiku-4-5-20251001": 4096,
}
"""Tokens of the shortest prefix that is cached, by model, as documented in 2026."""

ALWAYS_THINKS = frozenset({"claude-opus-5-5"})
"""Models whose thinking cannot be turned off. They cannot be forced to use a tool, and write no text between tool calls
unless `thinking.display` asks for a summary, as the API documents."""


@cache
def known_models() -> tuple[str, ...]:
    """Return the names in the installed SDK's `Model` type.

    Reads them from its source: importing the SDK takes seconds and tens of megabytes, too much for a stand-in.
    """
    spec = find_spec("anthropic")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("The anthropic SDK is not installed: run `make setup`.")
    source = Path(next(iter(spec.submodule_search_locations))) / "types" / "model.py"
    names = [
        node.value
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("claude-")
    ]
    return tuple(dict.fromkeys(names))


def cache_minimum(model: str) -> int:
    """Return the tokens of the shortest prefix that this model caches."""
    return CACHE_MINIMUM.get(model, DEFAULT_CACHE_MINIMUM)


def model_info(model: str) -> dict[str, Any]:
    """Return a model as `GET /v1/models` shows it."""
    return {
        "type": "model",
        "id": model,
        "display_name": " ".join(part.capitalize() for part in model.split("-")) + " (rehearsal)",
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": 1_000_000,
        "max_tokens": 128_000,
    }
