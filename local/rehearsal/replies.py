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


@dataclass(frozen=True)
class ToolPart:
    """A tool_use block. The input is JSON text, because a truncated or invalid input has no other form."""

    id: str
    name: str
    input_json: str


Part = TextPart | ThinkingPart | ToolPart


@dataclass(frozen=True)
class Reply:
    """One message of the model."""

    parts: tuple[Part, ...]
    stop_reason: str
    stop_details: dict[str, Any] | None = None


@dataclass(frozen=True)
class Event:
    """One server-sent event. `output_tokens` counts the output up to and including it."""

    name: str
    data: dict[str, Any]
    output_tokens: int
    visible: bool = False
    """Whether a reader sees it. The server spreads its think time over the visible events."""

    def encode(self) -> bytes:
        """Return the event's bytes in the stream."""
        return f"event: {self.name}\ndata: {json.dumps(self.data, ensure_ascii=False)}\n\n".encode()


def _content(part: Part) -> str:
    match part:
        case TextPart(text=text):
            return text
        case ThinkingPart(thinking=thinking):
            return thinking
        case ToolPart(input_json=text):
            return text


def output_tokens(reply: Reply) -> int:
    """Return the output tokens of the reply; never 0, as with the API."""
    return max(1, sum(text_tokens(_content(part)) for part in reply.parts))


def _shorten(part: Part, characters: int) -> Part:
    match part:
        case TextPart():
            return replace(part, text=part.text[:characters].rstrip())
        case ThinkingPart():
            return part
        case ToolPart():
            return replace(part, input_json=part.input_json[:characters])


def cut_to(reply: Reply, max_tokens: int) -> Reply:
    """Return the reply cut to `max_tokens`; the last block may be incomplete."""
    left = max_tokens
    content: list[Part] = []
    for part in reply.parts:
        needed = text_tokens(_content(part))
        if needed <= left:
            content.append(part)
            left -= needed
            continue
        if left > 0 and not isinstance(part, ThinkingPart):
            start = _content(part).encode()[: left * BYTES_PER_TOKEN].decode(errors="ignore")
            content.append(_shorten(part, len(start)))
        return Reply(tuple(part for part in content if part != TextPart("")), "max_tokens")
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


def message_json(reply: Reply, message_id: str, model: str, usage: InputUsage) -> dict[str, Any]:
    """Return the whole message, for a request that does not stream."""
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [_block_json(part) for part in reply.parts],
        "stop_reason": reply.stop_reason,
        "stop_sequence": None,
        "stop_details": reply.stop_details,
        "usage": usage_json(usage, output_tokens(reply)),
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


def _opening_block(part: Part) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"type": "text", "text": "", "citations": None}
        case ThinkingPart():
            return {"type": "thinking", "thinking": "", "signature": ""}
        case ToolPart():
            return _block_json(replace(part, input_json="{}"))


def stream_events(reply: Reply, message_id: str, model: str, usage: InputUsage) -> Iterator[Event]:
    """Yield the events of a streamed message, from message_start to message_stop."""
    start = message_json(Reply((), reply.stop_reason), message_id, model, usage)
    start |= {"stop_reason": None, "usage": usage_json(usage, 1)}
    yield Event("message_start", {"type": "message_start", "message": start}, 1)
    yield Event("ping", {"type": "ping"}, 1)
    total, produced = output_tokens(reply), 0
    for index, part in enumerate(reply.parts):
        opening = {"type": "content_block_start", "index": index, "content_block": _opening_block(part)}
        yield Event("content_block_start", opening, max(1, produced))
        for delta, tokens in _deltas(part):
            produced = min(total, produced + tokens)
            data = {"type": "content_block_delta", "index": index, "delta": delta}
            yield Event("content_block_delta", data, max(1, produced), visible=not isinstance(part, ToolPart))
        yield Event("content_block_stop", {"type": "content_block_stop", "index": index}, max(1, produced))
    final = usage_json(usage, total)
    cumulative = {key: final[key] for key in final if key.endswith("_tokens")}
    delta = {"stop_reason": reply.stop_reason, "stop_sequence": None, "stop_details": reply.stop_details}
    yield Event("message_delta", {"type": "message_delta", "delta": delta, "usage": cumulative}, total)
    yield Event("message_stop", {"type": "message_stop"}, total)
