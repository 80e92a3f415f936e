"""What the vendor bills for an answer, as far as it can be told from the answer.

Source: the vendor's page "Refusals and fallback" for the refusals that are free.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from domain.answer import Answer
from domain.pricing import Iteration, Tokens

_BILLED_REFUSALS = frozenset({"bio", "frontier_llm", "reasoning_extraction"})
"""Categories whose refusals are billed although they came before any output. Others are free then."""

_BYTES_PER_TOKEN = 3
"""Of text and code; few tokens are shorter, so an estimate is rather too high than too low."""


@dataclass(frozen=True)
class Bill:
    """What was served, and which parts of it are billed."""

    tokens: Tokens
    iterations: tuple[Iteration, ...]
    """The parts of the call, as the vendor named them."""
    billed: tuple[Iteration, ...]
    estimated: bool
    """The vendor named no tokens, so these are an estimate."""


def bill_of(answer: Answer) -> Bill:
    """Return the bill of a complete answer."""
    tokens = answer.tokens
    parts = answer.iterations or (Iteration("message", None, tokens),)
    billed = _billed(answer, parts)
    output = _size(answer) if not tokens.output else 0
    if not billed or (tokens.prompt and not output):
        return Bill(tokens, answer.iterations, billed, estimated=False)
    prompt = 0 if tokens.prompt else max(1, answer.request_bytes // _BYTES_PER_TOKEN)
    tokens += Tokens(input=prompt, output=output // _BYTES_PER_TOKEN)
    return Bill(tokens, (), (Iteration("message", None, tokens),), estimated=True)


def _size(answer: Answer) -> int:
    """Bytes of the answer; 0 if it says nothing."""
    return len(json.dumps(answer.blocks)) if answer.blocks else 0


def _billed(answer: Answer, parts: Sequence[Iteration]) -> tuple[Iteration, ...]:
    """The parts without those that a model declined before it had said anything."""
    triggers = [block.get("trigger") for block in answer.blocks if block.get("type") == "fallback"]
    categories = [trigger.get("category") if isinstance(trigger, dict) else None for trigger in triggers]
    free: set[int] = set()
    for place, (each, following) in enumerate(pairwise(parts)):
        if each.model != following.model and categories:
            free |= {place} if _is_free(each, categories.pop(0)) else set()
    declined = answer.stop_reason == "refusal" and not _says_something(answer)
    if declined and _is_free(parts[-1], (answer.details or {}).get("category")):
        free.add(len(parts) - 1)
    return tuple(each for place, each in enumerate(parts) if place not in free)


def _says_something(answer: Answer) -> bool:
    """Whether the model that answered last said anything, whatever was counted."""
    kinds = [block.get("type") for block in answer.blocks]
    return bool(kinds) and kinds[-1] != "fallback"


def _is_free(declined: Iteration, category: object) -> bool:
    return not declined.tokens.output and category not in _BILLED_REFUSALS
