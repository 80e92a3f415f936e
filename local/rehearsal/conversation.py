"""A request in the form that scripts use: the prompt, and each earlier turn's calls and results."""

import json
import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from local.rehearsal.prefix import content_blocks

_EXIT_CODE = re.compile(r"\[exit code (-?\d+)\]")


@dataclass(frozen=True)
class Call:
    """A tool call to make."""

    tool: str
    input: dict[str, Any]


@dataclass(frozen=True)
class ToolResult:
    """A tool's result as text. Images are only counted."""

    text: str
    is_error: bool
    images: int = 0

    @property
    def exit_code(self) -> int | None:
        """The exit code in a command's result; None if there is none."""
        codes = _EXIT_CODE.findall(self.text)
        return int(codes[-1]) if codes else None

    @property
    def ok(self) -> bool:
        """Whether it worked."""
        return not self.is_error and self.exit_code in (None, 0)


@dataclass(frozen=True)
class Exchange:
    """An assistant message and the user message that answers it."""

    text: str
    calls: tuple[Call, ...]
    results: tuple[ToolResult, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Conversation:
    """The conversation so far."""

    system: str
    opening: tuple[str, ...]
    exchanges: tuple[Exchange, ...]


@dataclass(frozen=True)
class Turn:
    """The model's next message. Without calls it ends the model's turn."""

    text: str
    calls: tuple[Call, ...] = ()
    thinking: str | None = None


@dataclass(frozen=True)
class Outcome:
    """The outcome of a turn. `happened` is False if the conversation has another message in its place.

    That is the case if the message was cut off, empty or refused. Then none of its calls ran, and the script yields the
    turn again.
    """

    happened: bool
    results: tuple[ToolResult, ...] = ()
    texts: tuple[str, ...] = field(default=())


Play = Generator[Turn, Outcome, Any]
"""A script: yields turns, and receives the outcome of each."""


def _result(block: dict[str, Any]) -> ToolResult:
    parts = content_blocks(block.get("content", ""))
    text = "\n".join(str(part["text"]) for part in parts if part.get("type") == "text")
    images = sum(part.get("type") == "image" for part in parts)
    return ToolResult(text, bool(block.get("is_error")), images)


def _texts(blocks: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(str(block["text"]) for block in blocks if block["type"] == "text")


def read_conversation(body: dict[str, Any]) -> Conversation:
    """Return the conversation of a valid request. Consecutive messages of one role count as one."""
    runs: list[tuple[str, list[dict[str, Any]]]] = []
    for message in body["messages"]:
        if runs and runs[-1][0] == message["role"]:
            runs[-1][1].extend(content_blocks(message["content"]))
        else:
            runs.append((message["role"], list(content_blocks(message["content"]))))
    exchanges = []
    for (_, message), (_, answer) in zip(runs[1::2], runs[2::2], strict=False):
        calls = [block for block in message if block["type"] == "tool_use"]
        by_id = {block["tool_use_id"]: _result(block) for block in answer if block["type"] == "tool_result"}
        exchanges.append(
            Exchange(
                text="".join(_texts(message)),
                calls=tuple(Call(block["name"], block["input"]) for block in calls),
                results=tuple(by_id[block["id"]] for block in calls),
                texts=_texts(answer),
            )
        )
    system = "\n".join(str(block["text"]) for block in content_blocks(body.get("system")))
    return Conversation(system, _texts(runs[0][1]), tuple(exchanges))


def _matches(turn: Turn, exchange: Exchange) -> bool:
    if turn.calls or exchange.calls:
        return turn.calls == exchange.calls
    # A redacted final text is not much shorter. One that was cut off or refused has about half its length.
    return len(exchange.text) >= 0.7 * len(turn.text)


def next_turn(play: Play, exchanges: Sequence[Exchange]) -> Turn | None:
    """Play the script against the conversation and return what comes next; None when the script is over."""
    try:
        turn = next(play)
        for exchange in exchanges:
            happened = _matches(turn, exchange)
            turn = play.send(Outcome(happened, exchange.results if happened else (), exchange.texts))
    except StopIteration:
        return None
    return turn


def tagged_json(system: str, tag: str) -> Any:
    """Return the JSON value after a tag in the system prompt, or None.

    Parses the value to its own end, because a founder's text may contain the closing tag.
    """
    at = system.find(f"<{tag}>\n")
    if at < 0:
        return None
    try:
        return json.JSONDecoder().raw_decode(system, at + len(tag) + 3)[0]
    except ValueError:
        return None


def tagged_text(system: str, tag: str) -> str:
    """Return the text between the last pair of these tags in the system prompt."""
    start = system.rfind(f"<{tag}>\n")
    end = system.rfind(f"\n</{tag}>")
    return system[start + len(tag) + 3 : end] if 0 <= start < end else ""
