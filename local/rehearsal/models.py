"""The models, and how they differ on the wire.

Sources: the vendor's pages "What's new in Claude Opus 5.5" and "… Sonnet 5.5", "Prompt caching", "Effort",
"Compaction on demand" and "Refusals and fallback", read in stored copies of September and October 2026. What no page
said is marked; `docs/vendors.md` lists it.
"""

import ast
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

ThinkingType = Literal["adaptive", "enabled", "disabled", "between_tools"]

EFFORT_LEVELS = ("low", "medium", "high", "xhigh", "max")
"""Values of `output_config.effort`, from the least to the most (SDK `OutputConfigParam`)."""

EFFORT_WITHOUT_THINKING = ("low", "medium", "high")
"""Effort levels that `disabled` and `between_tools` may be combined with."""


@dataclass(frozen=True)
class ModelTraits:
    """What a request to a model may ask for, and what the model does by default."""

    cache_minimum: int = 1024
    """Tokens of the shortest prefix that is cached."""
    thinking: tuple[ThinkingType, ...] = ("adaptive", "enabled", "disabled")
    """Accepted values of `thinking.type`."""
    thinks_by_default: bool = False
    """Whether a request without `thinking` runs with adaptive thinking."""
    display: Literal["summarized", "omitted"] = "summarized"
    """The default of `thinking.display`."""
    updates: bool = False
    """Whether `thinking.display` may be `updates`."""
    notes: Literal["text", "long", "all"] = "text"
    """Notes before a tool call that come as progress-update thinking blocks: none, those longer than two sentences, or
    all of them."""
    forced_tools: bool = True
    """Whether `tool_choice` may force a tool."""
    default_effort: str = "high"
    compacts: bool = False
    """Whether the model takes the `compaction` parameter."""
    system_messages: bool = False
    """Whether `messages` may have messages of the role `system`."""
    fallbacks: tuple[str, ...] = ()
    """Models that a request may name in `fallbacks`."""
    default_fallback: dict[str, str] = field(default_factory=dict)
    """The model that `fallbacks: "default"` selects, by refusal category."""
    window: int = 1_000_000
    """Tokens of input and output together."""
    max_output: int = 128_000
    """Largest `max_tokens`."""


_FABLE = ModelTraits(
    system_messages=True,
    cache_minimum=512,
    thinking=("adaptive",),
    thinks_by_default=True,
    display="omitted",
    updates=True,
    notes="all",
    forced_tools=False,
    compacts=True,
    fallbacks=("claude-opus-5", "claude-opus-4-8"),
    default_fallback={"cyber": "claude-opus-4-8", "bio": "claude-opus-4-8", "frontier_llm": "claude-opus-4-8"},
)

TRAITS = {
    "claude-opus-5-5": ModelTraits(
        system_messages=True,
        cache_minimum=512,
        thinking=("adaptive",),
        thinks_by_default=True,
        display="omitted",
        updates=True,
        notes="all",
        forced_tools=False,
        default_effort="medium",
        compacts=True,
        # Which models it may fall back to is not published; the Models API says it.
        fallbacks=("claude-opus-5", "claude-opus-4-8", "claude-sonnet-5"),
        default_fallback={"cyber": "claude-opus-4-8", "frontier_llm": "claude-opus-4-8"},
    ),
    "claude-sonnet-5-5": ModelTraits(
        system_messages=True,
        cache_minimum=512,
        thinking=("adaptive", "between_tools"),
        thinks_by_default=True,
        display="omitted",
        updates=True,
        notes="long",
        forced_tools=False,
        compacts=True,
        fallbacks=("claude-sonnet-5", "claude-opus-4-8"),
        default_fallback={"cyber": "claude-sonnet-5", "frontier_llm": "claude-sonnet-5"},
    ),
    "claude-haiku-5-5": ModelTraits(
        cache_minimum=4096,  # Haiku 4.5's; one guide says 512 for all 5.5 models, and no page of the vendor was found
        thinking=("adaptive", "disabled"),
        thinks_by_default=True,
        display="omitted",
        default_effort="medium",
        compacts=True,
    ),
    "claude-fable-5-2": _FABLE,
    "claude-mythos-5-2": _FABLE,
    "claude-fable-5-1": _FABLE,
    "claude-mythos-5-1": _FABLE,
    "claude-fable-5": ModelTraits(
        system_messages=True, cache_minimum=512, thinking=("adaptive",), thinks_by_default=True, display="omitted",
        updates=True, notes="all", compacts=True, fallbacks=("claude-opus-5", "claude-opus-4-8"),
        default_fallback={"cyber": "claude-opus-4-8", "bio": "claude-opus-4-8"},
    ),
    "claude-mythos-5": ModelTraits(
        system_messages=True, cache_minimum=512, thinking=("adaptive",), thinks_by_default=True, display="omitted",
        compacts=True,
    ),
    "claude-opus-5": ModelTraits(
        system_messages=True, cache_minimum=512, thinking=("adaptive", "disabled"), thinks_by_default=True,
        display="omitted", compacts=True,
        fallbacks=("claude-opus-4-8",), default_fallback={"cyber": "claude-opus-4-8"},
    ),
    "claude-sonnet-5": ModelTraits(thinking=("adaptive", "disabled"), display="omitted", compacts=True),
    "claude-opus-4-8": ModelTraits(
        system_messages=True, thinking=("adaptive", "disabled"), display="omitted", compacts=True
    ),
    "claude-opus-4-7": ModelTraits(
        cache_minimum=2048, thinking=("adaptive", "disabled"), display="omitted", compacts=True
    ),
    "claude-opus-4-6": ModelTraits(cache_minimum=4096, compacts=True),
    "claude-sonnet-4-6": ModelTraits(compacts=True),
    "claude-opus-4-5": ModelTraits(cache_minimum=4096, window=200_000),
    "claude-opus-4-5-20251101": ModelTraits(cache_minimum=4096, window=200_000),
    "claude-haiku-4-5": ModelTraits(cache_minimum=4096, window=200_000),
    "claude-haiku-4-5-20251001": ModelTraits(cache_minimum=4096, window=200_000),
}  # fmt: skip
"""One row per model. A model without a row has the defaults of `ModelTraits`."""

_LINES = ("haiku", "sonnet", "opus", "fable", "mythos")


def sdk_source(*path: str) -> ast.Module:
    """Return a parsed source file of the installed SDK.

    Importing the SDK takes seconds and tens of megabytes, too much for a stand-in.
    """
    spec = find_spec("anthropic")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("The anthropic SDK is not installed: run `make setup`.")
    return ast.parse(Path(next(iter(spec.submodule_search_locations)), *path).read_text())


@cache
def known_models() -> tuple[str, ...]:
    """Return the names in the installed SDK's `Model` type."""
    names = [
        node.value
        for node in ast.walk(sdk_source("types", "model.py"))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("claude-")
    ]
    return tuple(dict.fromkeys(names))


def traits(model: str) -> ModelTraits:
    """Return what the model takes and does."""
    return TRAITS.get(model, _DEFAULT)


_DEFAULT = ModelTraits()


def cache_minimum(model: str) -> int:
    """Return the tokens of the shortest prefix that this model caches."""
    return traits(model).cache_minimum


def model_info(model: str, *, compaction: bool = False, fallbacks: bool = False) -> dict[str, Any]:
    """Return a model as `GET /v1/models` shows it (SDK `ModelInfo` and `BetaModelInfo`).

    Args:
        model: the name.
        compaction: whether the request has the beta of the `compaction` parameter.
        fallbacks: whether the request has the beta of the `fallbacks` parameter.
    """

    def supported(value: bool) -> dict[str, bool]:
        return {"supported": value}

    row = traits(model)
    capabilities: dict[str, Any] = {
        "batch": supported(False),
        "citations": supported(False),
        "code_execution": supported(False),
        "context_management": {"supported": False},
        "effort": {"supported": True} | {level: supported(True) for level in EFFORT_LEVELS},
        "image_input": supported(True),
        "pdf_input": supported(False),
        "server_tools": {"supported": False, "code_execution": supported(False), "web_search": supported(False)},
        "structured_outputs": supported(True),
        "thinking": {
            "supported": True,
            "types": {
                kind: supported(kind in row.thinking) for kind in ("adaptive", "between_tools", "disabled", "enabled")
            },
        },
    }
    if compaction:
        capabilities["compaction"] = {"supported": row.compacts, "summarize": supported(row.compacts)}
    info = {
        "type": "model",
        "id": model,
        "display_name": " ".join(part.capitalize() for part in model.split("-")) + " (rehearsal)",
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
        "line": next((line for line in _LINES if f"-{line}-" in model), None),
        "max_input_tokens": row.window,
        "max_tokens": row.max_output,
        "capabilities": capabilities,
    }
    return info | ({"allowed_fallback_models": list(row.fallbacks)} if fallbacks else {})
