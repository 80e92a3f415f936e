"""A model's answer: its content blocks, how the build interprets them, and how its text becomes narration."""

import json
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from domain.answer_blocks import Block, normalise_blocks
from domain.errors import InvalidToolInput
from domain.guards import call_signature
from domain.payloads import RequestedCall, ThinkOutcome
from domain.pricing import Iteration, Tokens
from domain.refusals import refusal_details, refusal_reason
from domain.sent_tools import SentTools, tools_of
from domain.text import storable
from domain.tools import TOOLS, is_mutating, summarize_call, uses_browser

WINDOW_EXCEEDED = "model_context_window_exceeded"
"""The stop reason of an answer that ends where the model's window does."""

REFUSAL = "refusal"
"""The stop reason of an answer that a safety check has declined."""


@dataclass(frozen=True)
class Answer:
    """A complete answer: the stream reached `message_stop`."""

    blocks: list[Block]
    stop_reason: str | None
    tokens: Tokens
    """All that was served, in whatever part of the call."""
    request_id: str | None
    iterations: tuple[Iteration, ...] = ()
    """The parts of the call, if the API names them."""
    unreadable: frozenset[int] = frozenset()
    """Positions of the tool calls whose input is not JSON; it is empty in their blocks."""
    details: dict[str, Any] | None = None
    """The vendor's `stop_details`."""
    request_bytes: int = 0
    """Length of the request."""


@dataclass(frozen=True)
class Reading:
    """An answer as the build interprets it.

    `blocks` are the content blocks to store and to send back in later requests. `invalid` maps the `tool_use_id` of
    each call that must not run to the text of its error result.
    """

    outcome: ThinkOutcome
    blocks: list[Block]
    stored_as: str
    """The stop reason that is stored with the turn; `empty` if the model ended it without any text."""
    calls: list[RequestedCall] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    invalid: dict[str, str] = field(default_factory=dict)
    reason: str | None = None
    refusal: dict[str, Any] | None = None
    """What a safety check said that declined the answer. Then there are no blocks: nothing of it may be sent back."""


def read_refusal(details: Mapping[str, Any] | None) -> Reading:
    """The reading of a declined answer, from its stop details or from what was stored of them."""
    kept = refusal_details(details)
    return Reading(ThinkOutcome.REFUSED, [], REFUSAL, reason=refusal_reason(kept), refusal=kept)


TEXT_CALL = "text_call"
"""Stored instead of a stop reason: the model wrote a tool call as text."""

UNSTORABLE = "unstorable"
"""Stored instead of a stop reason: the answer could not be stored, and this turn holds its place."""


def read_answer(
    answer: Answer, turn: int = 0, used_ids: Container[str] = (), tools: SentTools | None = None
) -> Reading:
    """Interpret an answer. Tools run only if it stopped for `tool_use`: a call in a truncated message never runs.

    Stop reasons: https://docs.claude.com/en/api/handling-stop-reasons

    Args:
        answer: as the provider read it.
        turn: the turn that it answers.
        used_ids: ids of the build's earlier calls that must not be used again.
        tools: those of the answer's prefix; None means this version's.
    """
    stopped = answer.stop_reason or "none"
    if stopped == REFUSAL:
        # With the declined answer in it, the conversation would be declined again and again.
        return read_refusal(answer.details)
    blocks, problems = normalise_blocks(answer.blocks, turn, used_ids)
    problems |= {blocks[position]["id"]: _UNREADABLE for position in answer.unreadable}
    # A thinking block that was cut off has no signature, and the API rejects it in later requests.
    whole = [block for block in _after_fallbacks(blocks) if block.get("type") != "thinking" or block.get("signature")]
    if stopped == "tool_use":
        if any(block.get("type") == "tool_use" for block in whole):
            return _read_tool_use(whole, problems, tools or tools_of(None))
        stopped = "empty"
    blocks = [block for block in whole if block.get("type") != "tool_use"]
    texts = [str(block.get("text")) for block in blocks if block.get("type") == "text"]
    has_text = any(text.strip() for text in texts)
    if not has_text:
        # Roles must alternate and the API rejects empty messages, so store a placeholder.
        blocks.append({"type": "text", "text": "(no text)"})
    match stopped:
        case "end_turn" | "stop_sequence" if any(_CALL_AS_TEXT.search(text) for text in texts):
            return Reading(_ASK_AGAIN, blocks, TEXT_CALL)
        case "end_turn" | "stop_sequence":
            return Reading(ThinkOutcome.END_TURN, blocks, stopped) if has_text else Reading(_ASK_AGAIN, blocks, "empty")
        case "max_tokens" | "pause_turn" | "empty" | "text_call" | "unstorable":
            return Reading(_ASK_AGAIN, blocks, stopped)
        case "model_context_window_exceeded":
            reason = (
                "The conversation has become longer than the model can read. Finish the build with what it has; a new "
                "build continues from there with a new conversation."
            )
        case _:
            reason = f"The model stopped for an unknown reason: {stopped}. Wake the build to try again."
    return Reading(ThinkOutcome.REFUSED, blocks, stopped, reason=reason)


_ASK_AGAIN = ThinkOutcome.CONTINUE

_UNREADABLE = (
    "The input of this call is not JSON, so the tool was not run. Call it again with valid JSON, and with "
    "less in one call if it was long."
)

_TOOL_NAMES = "|".join(TOOLS)
_CALL_AS_TEXT = re.compile(
    # Only at the start of a line, and only if nothing or one of our tools is called: a product may be about such tags.
    rf"^\s*<(?:antml:)?function_calls>\s*(?:$|</|<(?:antml:)?invoke name=\"(?:{_TOOL_NAMES})\")"
    rf"|^\s*<(?:antml:)?(?:invoke|tool_use|tool_call) name=\"(?:{_TOOL_NAMES})\""
    rf"|^\s*(?:<tool_call>|<tool_use>|\[TOOL_CALLS?\])\s*[\[{{]+\s*\"name\"\s*:\s*\"(?:{_TOOL_NAMES})\"",
    re.MULTILINE,
)
"""A tool call that a model wrote into its text, in the forms in which models are trained to make calls."""


def unstorable() -> Reading:
    """Return what takes the place of an answer that can't be stored: the turn is over, and the next one says so."""
    text = {"type": "text", "text": "(This answer could not be stored.)"}
    return Reading(_ASK_AGAIN, [text], UNSTORABLE)


def is_silent(blocks: Sequence[Block], *, updates: bool) -> bool:
    """Whether an answer has nothing for people. With `updates`, its thinking blocks are meant for them."""
    return not any(
        str(block.get("text") or (updates and block.get("thinking")) or "").strip()
        for block in blocks
        if block.get("type") in ("text", "thinking")
    )


def _after_fallbacks(blocks: Sequence[Block]) -> list[Block]:
    """Leave out the calls of models that then gave way to another one. The API does not take them back.

    Source: the SDK's `BetaFallbackBlockParam`.
    """
    last = max((at for at, block in enumerate(blocks) if block.get("type") == "fallback"), default=-1)
    return [block for at, block in enumerate(blocks) if at > last or block.get("type") != "tool_use"]


def _read_tool_use(blocks: Sequence[Block], problems: Mapping[str, str], tools: SentTools) -> Reading:
    reading = Reading(ThinkOutcome.TOOL_USE, list(blocks), "tool_use")
    for block in blocks:
        if block.get("type") != "tool_use":
            continue
        name, tool_input, tool_use_id = block["name"], block["input"], block["id"]
        try:
            tools.check(name, tool_input)
        except InvalidToolInput as error:
            reading.invalid[tool_use_id] = str(error)
        if tool_use_id in problems:
            reading.invalid[tool_use_id] = problems[tool_use_id]
        reading.names.append(storable(name))
        reading.calls.append(
            RequestedCall.sparse(
                tool_use_id=tool_use_id,
                signature=call_signature(name, tool_input),
                summary=summarize_call(name, tool_input),
                mutating=is_mutating(name),
                in_browser=uses_browser(name),
                is_valid=tool_use_id not in reading.invalid,
            )
        )
    return reading


def input_of(blocks: Sequence[Block], tool_use_id: str) -> Any:
    """Return the input of a `tool_use` block of a stored answer.

    Raises:
        LookupError: the answer has no such block.
    """
    for block in blocks:
        if block.get("type") == "tool_use" and block.get("id") == tool_use_id:
            return block.get("input")
    raise LookupError(f"the stored answer has no tool call {tool_use_id}")


_UNPAIRED = re.compile("[\ud800-\udfff]")


def to_stored_text(blocks: Sequence[Block]) -> str:
    """Render content blocks as the JSON text that is stored and sent: plain UTF-8, escaped only for lone surrogates."""
    stored = json.dumps(list(blocks), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return json.dumps(list(blocks), separators=(",", ":")) if _UNPAIRED.search(stored) else stored


_SENTENCE_END = re.compile(r"(?<=[.!?:])(?=\s)|\n+")


class SentenceBuffer:
    """Cuts a stream of text into sentences, so that the feed shows them while the model is still answering."""

    def __init__(self) -> None:
        self._text = ""

    def feed(self, text: str) -> list[str]:
        """Add text, and return the sentences that it completes."""
        *complete, self._text = _SENTENCE_END.split(self._text + text)
        return [sentence for piece in complete if (sentence := piece.strip())]

    def rest(self) -> list[str]:
        """Return the rest when the text has ended."""
        rest, self._text = self._text.strip(), ""
        return [rest] if rest else []
