"""Faults that change what the model says: torn, declined or strange answers.

The strange ones are what models behind gateways have been seen to say, and what a later version of the API may say. The
names of blocks and deltas that exist today are the SDK's.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from local.rehearsal.replies import (
    PAUSE_TEXT,
    UNKNOWN_KIND,
    Part,
    RawPart,
    Reply,
    TextPart,
    ToolPart,
    truncate,
)

HostileKind = Literal[
    "duplicate_tool_id",
    "repeated_tool_id",
    "bad_tool_name",
    "long_tool_name",
    "bad_call_id",
    "infinite_number",
    "not_a_number",
    "huge_integer",
    "deep_nesting",
    "text_tool_call",
    "citations_delta",
    "unknown_delta",
    "unknown_block",
    "server_tool_use",
    "blank_blocks",
]
"""Answers that follow no rule of the program; see `change_reply` for what each says."""

NESTING = 3000
"""Arrays of `deep_nesting`, one in the other."""

DIGITS = 5000
"""Digits of `huge_integer`; more than Python reads by default."""

_STRANGE_INPUT = {
    "infinite_number": '{"file_path": "a", "view_range": [1e999, 1]}',
    "not_a_number": '{"file_path": "a", "view_range": [NaN, 1]}',
    "huge_integer": '{"file_path": "a", "view_range": [' + "7" * DIGITS + ", 1]}",
    "deep_nesting": '{"file_path": ' + "[" * NESTING + "]" * NESTING + ', "view_range": null}',
}


def change_reply(reply: Reply, kind: str | None, earlier_id: str | None = None) -> Reply:
    """Return the reply as a fault of this kind changes it.

    Args:
        reply: what the model would have said.
        kind: the fault's kind; others than those of answers change nothing.
        earlier_id: the id of a tool call in the conversation, for `repeated_tool_id`.
    """
    tools = [part for part in reply.parts if isinstance(part, ToolPart)]
    match kind:
        case "broken_tool_json":
            return Reply(_broken(reply.parts), reply.stop_reason)
        case "max_tokens":
            return truncate(reply, "max_tokens")
        case "empty":
            return Reply((), "end_turn")
        case "blank_blocks":
            return Reply((TextPart(""), TextPart(" \n"), *reply.parts), reply.stop_reason)
        case "pause_turn":
            return Reply((TextPart(PAUSE_TEXT),), "pause_turn")
        case "context_exceeded":
            return truncate(without_tools(reply), "model_context_window_exceeded")
        case "unknown_stop_reason":
            return Reply(without_tools(reply).parts, "a_reason_of_tomorrow")
        case "duplicate_tool_id" if tools:
            return replace(reply, parts=(*reply.parts, tools[-1]))
        case "repeated_tool_id" if tools and earlier_id:
            return _with_tool(reply, id=earlier_id)
        case "bad_tool_name":
            return _with_tool(reply, name="functions.bash")
        case "long_tool_name":
            return _with_tool(reply, name="b" * 200)
        case "bad_call_id":
            return _with_tool(reply, id="functions.bash:0")
        case "infinite_number" | "not_a_number" | "huge_integer" | "deep_nesting":
            return _with_tool(reply, name="read_file", input_json=_STRANGE_INPUT[kind])
        case "text_tool_call":
            calls = "\n".join(
                f'<function_calls>\n<invoke name="{tool.name}">{tool.input_json}</invoke>\n</function_calls>'
                for tool in tools
            )
            return Reply((TextPart(calls or "<function_calls></function_calls>"),), "end_turn")
        case "citations_delta" | "unknown_delta" | "unknown_block" | "server_tool_use":
            return replace(reply, parts=(*_strange_blocks(kind), *reply.parts))
        case _:
            return reply


def without_tools(reply: Reply) -> Reply:
    """Return the reply without its calls, but not empty."""
    parts = tuple(part for part in reply.parts if not isinstance(part, ToolPart))
    return Reply(parts or (TextPart("I was about to say something."),), reply.stop_reason)


def _with_tool(reply: Reply, **changes: Any) -> Reply:
    """Return the reply with its last call changed; with a call of `bash` if it has none."""
    *before, last = reply.parts if reply.parts and isinstance(reply.parts[-1], ToolPart) else (*reply.parts, None)
    call = last if isinstance(last, ToolPart) else ToolPart("toolu_01strange", "bash", '{"command": "true"}')
    kept = tuple(part for part in before if part is not None)
    return Reply((*kept, replace(call, **changes)), "tool_use")


def _strange_blocks(kind: str) -> tuple[Part, ...]:
    deltas: tuple[dict[str, Any], ...]
    if kind == "citations_delta":
        citation = {
            "type": "web_search_result_location",
            "cited_text": "a",
            "encrypted_index": "e",
            "title": "A page",
            "url": "https://example.org/",
        }
        text = {"type": "text_delta", "text": "As a page says."}
        deltas = (text, {"type": "citations_delta", "citation": citation})
        return (RawPart({"type": "text", "text": "", "citations": []}, deltas, "As a page says."),)
    if kind == "unknown_delta":
        deltas = ({"type": "delta_of_tomorrow", "more": "?"}, {"type": "text_delta", "text": "Something new."})
        return (RawPart({"type": "text", "text": "", "citations": None}, deltas, "Something new."),)
    if kind == "unknown_block":
        return (RawPart({"type": UNKNOWN_KIND, "payload": {"nested": [1, "ü"]}}, (), "payload"),)
    search = {"query": "how to"}
    use = {"type": "server_tool_use", "id": "srvtoolu_01a", "name": "web_search", "caller": {"type": "direct"}}
    deltas = ({"type": "input_json_delta", "partial_json": json.dumps(search)},)
    result = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_01a", "caller": {"type": "direct"}}
    return (RawPart(use | {"input": {}}, deltas, "how to"), RawPart(result | {"content": []}))


def _broken(parts: Sequence[Part]) -> tuple[Part, ...]:
    return tuple(
        replace(part, input_json=part.input_json.replace(":", ": oops ", 1)) if isinstance(part, ToolPart) else part
        for part in parts
    )
