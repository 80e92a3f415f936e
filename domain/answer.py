"""A model's answer: its content blocks, what it may be taken for, and how its text becomes narration."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from domain.errors import InvalidToolInput
from domain.guards import call_signature
from domain.payloads import RequestedCall, ThinkOutcome
from domain.pricing import Tokens
from domain.text import storable
from domain.tools import check_tool_input, is_mutating, summarize_call

Block = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """A whole answer: the stream reached `message_stop`."""

    blocks: list[Block]
    stop_reason: str | None
    tokens: Tokens
    request_id: str | None


@dataclass(frozen=True)
class Reading:
    """What an answer comes to.

    `blocks` is what is kept of it and sent back from now on; `invalid` holds the text of the error result by
    tool_use_id, for calls that must not run.
    """

    outcome: ThinkOutcome
    blocks: list[Block]
    stored_as: str
    """The stop reason that is stored with the turn; `empty` where the model ended it without a word."""
    calls: list[RequestedCall] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    invalid: dict[str, str] = field(default_factory=dict)
    reason: str | None = None


def read_answer(answer: Answer) -> Reading:
    """Decide what an answer comes to. Only `tool_use` runs tools: a tool call in a message that was cut off never does.

    Stop reasons: https://docs.claude.com/en/api/handling-stop-reasons
    """
    stopped = answer.stop_reason or "none"
    # A thinking block that was cut off has no signature, and the API does not take it back.
    whole = [block for block in answer.blocks if block["type"] != "thinking" or block.get("signature")]
    if stopped == "tool_use":
        if any(block["type"] == "tool_use" for block in whole):
            return _read_tool_use(whole)
        stopped = "empty"
    blocks = [block for block in whole if block["type"] != "tool_use"]
    spoke = any(block["type"] == "text" and block["text"].strip() for block in blocks)
    if not spoke:
        # The conversation must alternate and the API takes no empty message back, so something has to stand here.
        blocks.append({"type": "text", "text": "(no text)"})
    match stopped:
        case "end_turn" | "stop_sequence":
            return Reading(ThinkOutcome.END_TURN, blocks, stopped) if spoke else Reading(_ASK_AGAIN, blocks, "empty")
        case "max_tokens" | "pause_turn" | "empty":
            return Reading(_ASK_AGAIN, blocks, stopped)
        case "refusal":
            reason = "The model declined to go on with this. Change the brief or the goal, or wake the build to retry."
        case "model_context_window_exceeded":
            reason = (
                "The conversation has become longer than the model can read. Let the build finish with what there is; "
                "a new build goes on from there with a new conversation."
            )
        case _:
            reason = f"The model stopped for a reason that this version does not know: {stopped}."
    return Reading(ThinkOutcome.REFUSED, blocks, stopped, reason=reason)


_ASK_AGAIN = ThinkOutcome.CONTINUE


def _read_tool_use(blocks: Sequence[Block]) -> Reading:
    reading = Reading(ThinkOutcome.TOOL_USE, list(blocks), "tool_use")
    for block in blocks:
        if block["type"] != "tool_use":
            continue
        name, given, identity = block["name"], block["input"], block["id"]
        try:
            check_tool_input(name, given)
        except InvalidToolInput as error:
            reading.invalid[identity] = str(error)
        reading.names.append(storable(name))
        reading.calls.append(
            RequestedCall(
                tool_use_id=identity,
                signature=call_signature(name, given),
                summary=summarize_call(name, given),
                **({} if is_mutating(name) else {"mutating": False}),
                **({"is_valid": False} if identity in reading.invalid else {}),
            )
        )
    return reading


def input_of(blocks: Sequence[Block], tool_use_id: str) -> Any:
    """The input of a `tool_use` block of a stored answer.

    Raises:
        LookupError: the answer has no such block.
    """
    for block in blocks:
        if block.get("type") == "tool_use" and block.get("id") == tool_use_id:
            return block.get("input")
    raise LookupError(f"the stored answer has no tool call {tool_use_id}")


_UNPAIRED = re.compile("[\ud800-\udfff]")


def to_stored_text(blocks: Sequence[Block]) -> str:
    """Content blocks as the JSON text that is stored and sent: UTF-8 as it is, escapes only where it must."""
    stored = json.dumps(list(blocks), ensure_ascii=False, separators=(",", ":"))
    return json.dumps(list(blocks), separators=(",", ":")) if _UNPAIRED.search(stored) else stored


_SENTENCE_END = re.compile(r"(?<=[.!?:])(?=\s)|\n+")


class SentenceBuffer:
    """Cuts a stream of text into sentences, so that the feed moves while the model speaks."""

    def __init__(self) -> None:
        self._text = ""

    def feed(self, text: str) -> list[str]:
        """Add text; returns the sentences that are now complete."""
        *complete, self._text = _SENTENCE_END.split(self._text + text)
        return [sentence for piece in complete if (sentence := piece.strip())]

    def rest(self) -> list[str]:
        """What is left when the text ends."""
        rest, self._text = self._text.strip(), ""
        return [rest] if rest else []
