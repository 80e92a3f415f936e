"""The model's reply, and its two wire formats: one message, or a stream of events."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from local.rehearsal.cache import InputUsage
from local.rehearsal.prefix import BYTES_PER_TOKEN, text_tokens

PAUSE_TEXT = "I am still working on this; send the conversation back so that I can go on."
"""Text of a paused turn. A request may only end with an assistant message if that message ends with this text."""

TEXT_PIECE = 14
"""Characters of a text delta: a few words, so that a reader sees the feed grow."""

UNKNOWN_KIND = "block_of_tomorrow"
"""Type of a block that no version of the SDK knows."""

JSON_PIECES = (7, 41, 160, 23, 320, 90)
"""Characters of consecutive tool input deltas. Like the API's, they may split keys and escapes."""


@dataclass(frozen=True)
class TextPart:
    """A text block."""

    text: str


@dataclass(frozen=True)
class ThinkingPart:
    """A thinking block. The text is empty if the request asked for the signature only."""

    thinking: str
    signature: str
    is_note: bool = False
    """Whether it is a progress update: a note for the user, not reasoning."""


@dataclass(frozen=True)
class ToolPart:
    """A tool_use block. The input is JSON text, because a truncated or invalid input has no other form."""

    id: str
    name: str
    input_json: str


@dataclass(frozen=True)
class RawPart:
    """Any other block, as it goes over the wire: whole in its content_block_start, apart from its deltas."""

    block: dict[str, Any]
    deltas: tuple[dict[str, Any], ...] = ()
    text: str = ""
    """What counts as output."""


Part = TextPart | ThinkingPart | ToolPart | RawPart


@dataclass(frozen=True)
class Reply:
    """One message of the model."""

    parts: tuple[Part, ...]
    stop_reason: str
    stop_details: dict[str, Any] | None = None


@dataclass(frozen=True)
class Iteration:
    """One sampling of a request, as `usage.iterations` reports it (SDK `BetaIterationsUsage`)."""

    kind: str
    """message, fallback_message or compaction"""
    model: str
    usage: InputUsage
    output: int
    billed: bool = True

    def json(self) -> dict[str, Any]:
        """Return the entry. A `compaction` entry has no model (SDK `BetaCompactionIterationUsage`)."""
        fields = {key: value for key, value in usage_json(self.usage, self.output).items() if key != "service_tier"}
        return {"type": self.kind, **({} if self.kind == "compaction" else {"model": self.model}), **fields}


@dataclass(frozen=True)
class Envelope:
    """Everything of a message but its blocks."""

    message_id: str
    model: str
    usage: InputUsage
    output: int | None = None
    """Output tokens at the top level; None for those of the reply."""
    iterations: tuple[Iteration, ...] = ()
    """Reported if there are any."""
    first_model: str = ""
    """The model that message_start names, if it is another one."""
    no_usage: bool = False
    """Whether all counts are reported as 0."""


@dataclass(frozen=True)
class Event:
    """One server-sent event. `output_tokens` counts the output up to and including it."""

    name: str
    data: dict[str, Any]
    output_tokens: int
    visible: bool = False
    """Whether a reader sees it. The server spreads its think time over the visible events."""

    def encode(self) -> bytes:
        """Return the event's bytes in the stream. A lone surrogate, which UTF-8 can't carry, is escaped."""
        try:
            return f"event: {self.name}\ndata: {json.dumps(self.data, ensure_ascii=False)}\n\n".encode()
        except UnicodeEncodeError:
            return f"event: {self.name}\ndata: {json.dumps(self.data)}\n\n".encode()


def _content(part: Part) -> str:
    match part:
        case TextPart(text=text):
            return text
        case ThinkingPart(thinking=thinking):
            return thinking
        case ToolPart(input_json=text):
            return text
        case RawPart(text=text):
            return text


def output_tokens(reply: Reply) -> int:
    """Return the output tokens of the reply; never 0, as with the API."""
    return max(1, sum(text_tokens(_content(part)) for part in reply.parts))


def _shorten(part: Part, characters: int) -> Part:
    match part:
        case TextPart():
            return replace(part, text=part.text[:characters].rstrip())
        case ThinkingPart() | RawPart():
            return part
        case ToolPart():
            return replace(part, input_json=part.input_json[:characters])


def cut_to(reply: Reply, max_tokens: int, stop_reason: str = "max_tokens") -> Reply:
    """Return the reply cut to `max_tokens`; the last block may be incomplete. `stop_reason` is that of a cut reply."""
    left = max_tokens
    content: list[Part] = []
    for part in reply.parts:
        needed = text_tokens(_content(part))
        if needed <= left:
            content.append(part)
            left -= needed
            continue
        if left > 0 and not isinstance(part, ThinkingPart | RawPart):
            start = _content(part).encode()[: left * BYTES_PER_TOKEN].decode(errors="ignore")
            content.append(_shorten(part, len(start)))
        return Reply(tuple(part for part in content if part != TextPart("")), stop_reason)
    return reply


def truncate(reply: Reply, stop_reason: str) -> Reply:
    """Return the reply, cut in the middle of its last block."""
    if not reply.parts:
        return replace(reply, stop_reason=stop_reason)
    *before, last = reply.parts
    return Reply((*before, _shorten(last, max(1, len(_content(last)) // 2))), stop_reason)


def usage_json(usage: InputUsage, output: int) -> dict[str, Any]:
    """Return the `usage` object."""
    return {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write_5m + usage.cache_write_1h,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens": output,
        "service_tier": "standard",
    }


def _block_json(part: Part) -> dict[str, Any]:
    match part:
        case TextPart(text=text):
            return {"type": "text", "text": text, "citations": None}
        case ThinkingPart(thinking=thinking, signature=signature):
            return {"type": "thinking", "thinking": thinking, "signature": signature}
        case ToolPart(id=identifier, name=name, input_json=text):
            try:
                arguments = json.loads(text)
            except ValueError:
                arguments = {}
            return {
                "type": "tool_use",
                "id": identifier,
                "name": name,
                "input": arguments,
                "caller": {"type": "direct"},
            }
        case RawPart():
            return _whole_block(part)


def _whole_block(part: RawPart) -> dict[str, Any]:
    """Return the block with its deltas applied."""
    block = part.block
    for delta in part.deltas:
        match delta["type"]:
            case "text_delta":
                block = block | {"text": block["text"] + delta["text"]}
            case "citations_delta":
                block = block | {"citations": [*block["citations"], delta["citation"]]}
            case "input_json_delta":
                block = block | {"input": json.loads(delta["partial_json"])}
            case _:
                pass
    return block


def _reported(reply: Reply, envelope: Envelope) -> dict[str, Any]:
    if envelope.no_usage:
        return usage_json(InputUsage(), 0)
    output = output_tokens(reply) if envelope.output is None else envelope.output
    usage = usage_json(envelope.usage, output)
    return usage | ({"iterations": [entry.json() for entry in envelope.iterations]} if envelope.iterations else {})


def message_json(reply: Reply, envelope: Envelope) -> dict[str, Any]:
    """Return the whole message, for a request that does not stream."""
    return {
        "id": envelope.message_id,
        "type": "message",
        "role": "assistant",
        "model": envelope.model,
        "content": [_block_json(part) for part in reply.parts],
        "stop_reason": reply.stop_reason,
        "stop_sequence": None,
        "stop_details": reply.stop_details,
        "usage": _reported(reply, envelope),
    }


def _pieces(text: str, sizes: Iterator[int]) -> Iterator[str]:
    at = 0
    while at < len(text):
        size = next(sizes)
        yield text[at : at + size]
        at += size


def _deltas(part: Part) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the deltas of a block, each with its output tokens."""
    match part:
        case TextPart(text=text):
            for piece in _pieces(text, itertools.repeat(TEXT_PIECE)):
                yield {"type": "text_delta", "text": piece}, text_tokens(piece)
        case ThinkingPart(thinking=thinking, signature=signature):
            for piece in _pieces(thinking, itertools.repeat(TEXT_PIECE * 2)):
                yield {"type": "thinking_delta", "thinking": piece}, text_tokens(piece)
            yield {"type": "signature_delta", "signature": signature}, 0
        case ToolPart(input_json=text):
            yield {"type": "input_json_delta", "partial_json": ""}, 0
            for piece in _pieces(text, itertools.cycle(JSON_PIECES)):
                yield {"type": "input_json_delta", "partial_json": piece}, text_tokens(piece)
        case RawPart(deltas=deltas, text=text):
            for delta in deltas:
                yield delta, text_tokens(text) // len(deltas)


def _opening_block(part: Part) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"type": "text", "text": "", "citations": None}
        case ThinkingPart():
            return {"type": "thinking", "thinking": "", "signature": ""}
        case ToolPart():
            return _block_json(replace(part, input_json="{}"))
        case RawPart(block=block):
            return block


def stream_events(reply: Reply, envelope: Envelope) -> Iterator[Event]:
    """Yield the events of a streamed message, from message_start to message_stop."""
    final = _reported(reply, envelope)
    total = int(final["output_tokens"])
    # A compaction or a refusal before any output has no output at the top level, and so none in message_start.
    at_start = {"output_tokens": min(1, total)}
    start = message_json(Reply((), reply.stop_reason), envelope) | {"model": envelope.first_model or envelope.model}
    first = {key: value for key, value in final.items() if key != "iterations"} | at_start
    start |= {"stop_reason": None, "stop_details": None, "usage": first}
    yield Event("message_start", {"type": "message_start", "message": start}, min(1, total))
    yield Event("ping", {"type": "ping"}, min(1, total))
    produced = 0
    for index, part in enumerate(reply.parts):
        opening = {"type": "content_block_start", "index": index, "content_block": _opening_block(part)}
        yield Event("content_block_start", opening, max(min(1, total), produced))
        for delta, tokens in _deltas(part):
            produced = min(total, produced + tokens)
            data = {"type": "content_block_delta", "index": index, "delta": delta}
            visible = isinstance(part, TextPart | ThinkingPart)
            yield Event("content_block_delta", data, max(min(1, total), produced), visible=visible)
        yield Event("content_block_stop", {"type": "content_block_stop", "index": index}, max(min(1, total), produced))
    cumulative = {key: final[key] for key in final if key.endswith("_tokens") or key == "iterations"}
    delta = {"stop_reason": reply.stop_reason, "stop_sequence": None, "stop_details": reply.stop_details}
    yield Event("message_delta", {"type": "message_delta", "delta": delta, "usage": cumulative}, total)
    yield Event("message_stop", {"type": "message_stop"}, total)
