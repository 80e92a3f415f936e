"""Refusals of the safety classifiers, and the models that a request falls back to.

Sources: the vendor's pages "Refusals and fallback" and "Streaming refusals", and the SDK's `RefusalStopDetails`,
`BetaFallbackBlock` and `BetaFallbackParam`.
"""

import re
from dataclasses import dataclass
from typing import Any

from local.rehearsal.control import Fault
from local.rehearsal.hostile_replies import without_tools
from local.rehearsal.models import traits
from local.rehearsal.prefix import content_blocks
from local.rehearsal.replies import RawPart, Reply, TextPart, truncate

BILLED_CATEGORIES = frozenset({"bio", "frontier_llm", "reasoning_extraction"})
"""Categories whose refusals are billed although they came before any output."""

_MARK = re.compile(r"\(declined here: (\w+)\)$")


@dataclass(frozen=True)
class Refusal:
    """Why and how a request is declined."""

    category: str | None
    explanation: str | None
    partial: bool = True
    """Whether it comes after some output."""
    lasting: bool = False
    """Whether its output is marked, so that requests which still have it are declined, too."""
    models: tuple[str, ...] = ()
    """Models that decline; empty for the requested one, `*` for all."""

    @property
    def billed(self) -> bool:
        """Whether an attempt that was declined like this is billed."""
        return self.partial or self.category in BILLED_CATEGORIES

    def declines(self, model: str, requested: str) -> bool:
        """Whether this model declines."""
        return "*" in self.models or model in self.models or (not self.models and model == requested)


def refusal_of(fault: Fault | None, messages: list[dict[str, Any]]) -> Refusal | None:
    """Return the refusal that a fault asks for, or that an earlier one in the messages leads to."""
    if fault and fault.kind == "refusal":
        return Refusal(fault.category, fault.explanation, fault.partial, fault.lasting, fault.models)
    for message in messages:
        if message["role"] != "assistant":
            continue
        for block in content_blocks(message["content"]):
            if block["type"] == "text" and (match := _MARK.search(block["text"])):
                category = None if match[1] == "other" else match[1]
                # "Attempting to continue without resetting will result in continued refusals" (Streaming refusals).
                return Refusal(category, "The conversation has a declined message.", partial=False)
    return None


def decline(reply: Reply, refusal: Refusal) -> Reply:
    """Return the declined reply: the beginning of it, or nothing."""
    details = {"type": "refusal", "category": refusal.category, "explanation": refusal.explanation}
    if not refusal.partial:
        return Reply((), "refusal", details)
    parts = truncate(without_tools(reply), "refusal").parts
    if refusal.lasting:
        parts = (*parts, TextPart(f"(declined here: {refusal.category or 'other'})"))
    return Reply(parts, "refusal", details)


def fallback_bodies(body: dict[str, Any], refusal: Refusal | None) -> list[dict[str, Any]]:
    """Return the request as it is made to each fallback model, in order."""
    fallbacks, model = body.get("fallbacks"), body["model"]
    if fallbacks == "default":
        target = traits(model).default_fallback.get((refusal.category if refusal else None) or "")
        fallbacks = [{"model": target}] if target else []
    bodies = []
    for entry in fallbacks or []:
        attempt = body | {name: value for name, value in entry.items() if value is not None}
        thinking = attempt.get("thinking") or {}
        if "thinking" not in entry and thinking.get("type") not in traits(entry["model"]).thinking:
            attempt = {name: value for name, value in attempt.items() if name != "thinking"}
        bodies.append(attempt)
    return bodies


def fallback_block(declined: str, to: str, refusal: Refusal) -> RawPart:
    """Return the block that marks where one model's output gives way to the next."""
    trigger = {"type": "refusal", "category": refusal.category}
    return RawPart({"type": "fallback", "from": {"model": declined}, "to": {"model": to}, "trigger": trigger})
