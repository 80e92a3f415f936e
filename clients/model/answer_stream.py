"""Assembles the answer of a stream of the Messages API, strictly, and with whatever this version does not know.

Blocks are kept as JSON, as they came, so that a later request can send them back. Fields of the API that are newer
than this version are therefore kept, too.
"""

import json
from typing import Any

from domain.answer import Answer
from domain.answer_blocks import Block
from domain.pricing import Iteration, Tokens

Event = dict[str, Any]

_COMPACT = {"text", "thinking", "redacted_thinking", "tool_use"}
"""Blocks whose fields are all known: those without a value are left out. Other blocks are kept to the letter."""

_MOST_TOKENS = 10**9
"""More than any request has."""

_LONGEST_INTEGER = 40
"""Digits. A longer integer is read as 10 to this power: JSON that goes back to the API can't carry either."""


class AnswerStream:
    """The events of one stream. With `updates`, the thinking that is sent is meant for people: progress updates."""

    def __init__(self, *, updates: bool) -> None:
        self.request_id: str | None = None
        self.stopped = False
        self._updates = updates
        self._usage: dict[str, Any] = {}
        self._model: str | None = None
        self._stop_reason: str | None = None
        self._details: dict[str, Any] | None = None
        self._blocks: dict[int, Block] = {}
        self._input_json: dict[int, str] = {}
        self._has_spoken = False

    @property
    def iterations(self) -> tuple[Iteration, ...]:
        """What each model was asked in this call, if the API says so."""
        entries = self._usage.get("iterations")
        return (
            tuple(_iteration(entry) for entry in entries if isinstance(entry, dict))
            if isinstance(entries, list)
            else ()
        )

    @property
    def tokens(self) -> Tokens:
        """The usage reported so far. The counts in a stream are cumulative.

        The API's own sums leave out what a compaction or a declined model took, so they count only without iterations.
        """
        iterations = self.iterations
        return sum((each.tokens for each in iterations), Tokens()) if iterations else _tokens(self._usage)

    def take(self, event: Event) -> str:
        """Add an event; returns the text in it that is meant for people."""
        match event["type"]:
            case "message_start":
                self._note_usage(event["message"]["usage"])
            case "content_block_start":
                return self._start_block(event["index"], event["content_block"])
            case "content_block_delta":
                return self._take_delta(self._blocks[event["index"]], event["index"], event["delta"])
            case "message_delta":
                self._stop_reason = event["delta"].get("stop_reason")
                self._details = event["delta"].get("stop_details")
                self._note_usage(event["usage"])
            case "message_stop":
                self.stopped = True
        return ""

    def answer(self) -> Answer:
        """The complete answer. The input of a `tool_use` block is read only if the stop reason is `tool_use`: in a
        message that was cut off, a call may end anywhere, and it is never run.
        """
        blocks: list[Block] = []
        unreadable: set[int] = set()
        for index, block in sorted(self._blocks.items()):
            if streamed := self._input_json[index]:
                try:
                    block["input"] = _read_json(streamed)
                except ValueError:
                    if block["type"] != "tool_use":
                        continue  # the answer was cut off in it, and the API would not take it back
                    block["input"] = {}
                    unreadable.add(len(blocks))
            # The API refuses blank text blocks in a request.
            if block["type"] != "text" or str(block.get("text") or "").strip():
                blocks.append(block)
        whole = self._stop_reason == "tool_use"
        return Answer(
            blocks,
            self._stop_reason,
            self.tokens,
            self.request_id,
            iterations=self.iterations,
            unreadable=frozenset(unreadable) if whole else frozenset(),
            details=self._details,
        )

    def _note_usage(self, usage: dict[str, Any]) -> None:
        self._usage |= {key: value for key, value in usage.items() if value is not None}

    def _start_block(self, index: int, block: Block) -> str:
        kind = block["type"]
        if kind in _COMPACT:
            block = {key: value for key, value in block.items() if value is not None}
        self._blocks[index], self._input_json[index] = block, ""
        if not self._is_speech(kind):
            return ""
        text = str(block.get(kind) or "")
        return f"\n{text}" if self._has_spoken else text

    def _is_speech(self, kind: str) -> bool:
        return kind == "text" or (self._updates and kind == "thinking")

    def _take_delta(self, block: Block, index: int, delta: dict[str, Any]) -> str:
        match delta["type"]:
            case "text_delta":
                return self._say(block, "text", delta["text"])
            case "thinking_delta":
                return self._say(block, "thinking", delta["thinking"])
            case "input_json_delta":
                self._input_json[index] += delta["partial_json"]
            case "signature_delta":
                block["signature"] = delta["signature"]
            case "citations_delta":
                block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
            case _:
                _merge(block, delta)
        return ""

    def _say(self, block: Block, field: str, text: str) -> str:
        block[field] = block.get(field, "") + text
        if block["type"] != field or not self._is_speech(field):
            return ""
        self._has_spoken = True
        return text


def _merge(block: Block, delta: dict[str, Any]) -> None:
    """Add a delta of an unknown kind: texts and lists grow, and anything else is replaced."""
    for key, value in delta.items():
        if key == "type":
            continue
        before = block.get(key)
        if (isinstance(before, str) and isinstance(value, str)) or (
            isinstance(before, list) and isinstance(value, list)
        ):
            block[key] = before + value  # type: ignore[operator]
        else:
            block[key] = value


def _iteration(entry: dict[str, Any]) -> Iteration:
    model = entry.get("model")
    return Iteration(str(entry.get("type") or "message"), str(model) if model else None, _tokens(entry))


def _tokens(usage: dict[str, Any]) -> Tokens:
    written, one_hour = (
        _count(usage, "cache_creation_input_tokens"),
        _count(usage.get("cache_creation"), "ephemeral_1h_input_tokens"),
    )
    return Tokens(
        input=_count(usage, "input_tokens"),
        cache_write_5m=max(written - one_hour, 0),
        cache_write_1h=one_hour,
        cache_read=_count(usage, "cache_read_input_tokens"),
        output=_count(usage, "output_tokens"),
    )


def _count(usage: object, key: str) -> int:
    """The count under this key; 0 if it is not a count of tokens that could have been served."""
    value = usage.get(key) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and 0 <= value < _MOST_TOKENS else 0


def _read_json(streamed: str) -> Any:
    """Read a tool's input. None if it is nested too deep to read, which is for the agent to hear of.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return json.loads(streamed, parse_int=_integer)
    except RecursionError:
        return None


def _integer(digits: str) -> int:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else 10**_LONGEST_INTEGER
