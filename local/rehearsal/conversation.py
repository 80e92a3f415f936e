"""A request as the model's author sees it: the prompt, and what each earlier turn asked for and was told."""

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
    """What a tool answered, as text; images are only counted."""

    text: str
    is_error: bool
    images: int = 0

    @property
    def exit_code(self) -> int | None:
        """The exit code that a command's result names."""
        found = _EXIT_CODE.findall(self.text)
        return int(found[-1]) if found else None

    @property
    def ok(self) -> bool:
        """Whether it worked."""
        return not self.is_error and self.exit_code in (None, 0)


@dataclass(frozen=True)
class Exchange:
    """An assistant message and the user message that answers it."""

    said: str
    calls: tuple[Call, ...]
    results: tuple[ToolResult, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Conversation:
    """The request so far."""

    system: str
    opening: tuple[str, ...]
    exchanges: tuple[Exchange, ...]


@dataclass(frozen=True)
class Turn:
    """What the model says next. Without calls it ends its turn."""

    text: str
    calls: tuple[Call, ...] = ()
    thinking: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a turn. `happened` is False where the conversation shows something else in its place.

    That is so when the message was torn, empty or refused: then nothing of the turn was done, and it is offered again.
    """

    happened: bool
    results: tuple[ToolResult, ...] = ()
    texts: tuple[str, ...] = field(default=())


Play = Generator[Turn, Outcome, Any]
"""A script: yields turns, receives what came of each."""


def _result(block: dict[str, Any]) -> ToolResult:
    parts = content_blocks(block.get("content", ""))
    text = "\n".join(str(part["text"]) for part in parts if part.get("type") == "text")
    images = sum(part.get("type") == "image" for part in parts)
    return ToolResult(text, bool(block.get("is_error")), images)


def _texts(blocks: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(str(block["text"]) for block in blocks if block["type"] == "text")


def read_conversation(body: dict[str, Any]) -> Conversation:
    """The conversation of a valid request. Consecutive messages of one role count as one."""
    runs: list[tuple[str, list[dict[str, Any]]]] = []
    for message in body["messages"]:
        if runs and runs[-1][0] == message["role"]:
            runs[-1][1].extend(content_blocks(message["content"]))
        else:
            runs.append((message["role"], list(content_blocks(message["content"]))))
    exchanges = []
    for (_, said), (_, answer) in zip(runs[1::2], runs[2::2], strict=False):
        asked = [block for block in said if block["type"] == "tool_use"]
        by_id = {block["tool_use_id"]: _result(block) for block in answer if block["type"] == "tool_result"}
        exchanges.append(
            Exchange(
                said="".join(_texts(said)),
                calls=tuple(Call(block["name"], block["input"]) for block in asked),
                results=tuple(by_id[block["id"]] for block in asked),
                texts=_texts(answer),
            )
        )
    system = "\n".join(str(block["text"]) for block in content_blocks(body.get("system")))
    return Conversation(system, _texts(runs[0][1]), tuple(exchanges))


def _happened(turn: Turn, exchange: Exchange) -> bool:
    if turn.calls or exchange.calls:
        return turn.calls == exchange.calls
    # A final text may come back redacted, but not much shorter; a torn or refused one is about half.
    return len(exchange.said) >= 0.7 * len(turn.text)


def next_turn(play: Play, exchanges: Sequence[Exchange]) -> Turn | None:
    """Play the script against the conversation and return what comes next; None when the script is over."""
    try:
        turn = next(play)
        for exchange in exchanges:
            happened = _happened(turn, exchange)
            turn = play.send(Outcome(happened, exchange.results if happened else (), exchange.texts))
    except StopIteration:
        return None
    return turn


def tagged_json(system: str, tag: str) -> Any:
    """The JSON value that follows a tag in the system prompt; None where there is none.

    The value is read to its own end, since a founder's text may contain the closing tag.
    """
    at = system.find(f"<{tag}>\n")
    if at < 0:
        return None
    try:
        return json.JSONDecoder().raw_decode(system, at + len(tag) + 3)[0]
    except ValueError:
        return None


def tagged_text(system: str, tag: str) -> str:
    """The text between the last pair of these tags in the system prompt."""
    start = system.rfind(f"<{tag}>\n")
    end = system.rfind(f"\n</{tag}>")
    return system[start + len(tag) + 3 : end] if 0 <= start < end else ""
