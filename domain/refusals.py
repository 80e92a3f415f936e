"""Refusals: what a safety check of the model's vendor said when it declined to go on, in plain words."""

from collections.abc import Mapping
from typing import Any

from domain.text import storable

REFUSALS_IN_A_ROW = 3
"""Ask the founder after this many refusals in a row. Before, the agent is told to leave out what was declined."""

_MAX_EXPLANATION = 500
"""Characters of the vendor's explanation that are kept."""

_TOPICS: Mapping[str, str] = {
    "cyber": "computer security: it could help to attack computers",
    "bio": "biology or chemistry: it could help to do harm with them",
    "frontier_llm": "the development of AI models that compete with the vendor's",
    "reasoning_extraction": "a request to repeat the model's own reasoning",
    "general_harms": "content that could do harm",
}
"""By the vendor's category (SDK `RefusalStopDetails`)."""


def refusal_details(stop_details: object) -> dict[str, Any]:
    """The parts of the vendor's `stop_details` that are stored: the category and the explanation, if there are any."""
    said = stop_details if isinstance(stop_details, Mapping) else {}
    values = {name: said.get(name) for name in ("category", "explanation")}
    return {name: storable(value, _MAX_EXPLANATION) for name, value in values.items() if isinstance(value, str)}


def describe_refusal(details: Mapping[str, Any] | None) -> str:
    """What was declined, as a part of a sentence, with the vendor's explanation as another one."""
    details = details or {}
    category, explanation = details.get("category"), details.get("explanation")
    topic = _TOPICS.get(category or "", category)
    what = f"because of {topic} (category {category})" if topic else "without naming a category"
    return f'{what}. Its explanation: "{explanation}".' if explanation else f"{what}."


def refusal_reason(details: Mapping[str, Any] | None) -> str:
    """What the founder reads if the model keeps declining."""
    return (
        f"A safety check of the model declined to go on, {describe_refusal(details)} The build's work is kept. "
        "Tell the agent what to leave out or to do differently, finish the build with what is there, or wake it to try "
        "again."
    )


def refusal_notice(details: Mapping[str, Any] | None) -> str:
    """What the feed says about a refusal."""
    return (
        f"A safety check of the model declined the agent's last answer, {describe_refusal(details)} Cofounder drops "
        "the answer: nothing of it is run."
    )
