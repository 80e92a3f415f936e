"""A request in the form that scripts use: the prompt, and each earlier turn's calls and results.

A script decides from the conversation alone, and a compaction block stands for the beginning of it. So the block's text
ends with a trail: how many exchanges it hides, a digest, and the outcome of each, compressed. What the script did not
look at is left out, so that the trail of hundreds of alike turns is a few hundred bytes.
"""

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from domain.former_inputs import current_input, former_input
from local.rehearsal.compaction import first_block
from local.rehearsal.prefix import content_blocks

LONGEST_TRAIL_TEXT = 6000
"""Characters of a result or message that a trail keeps; the middle of a longer one is left out."""

_TRAIL = re.compile(r"\[(\d+) exchanges?, digest ([0-9a-f]{12}): ([A-Za-z0-9+/=]*)\]\s*$")
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
    happened: bool | None = None
    """Whether the message was the turn that the script meant. None if that follows from text and calls, as it does
    unless a compaction block hides them."""


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
    reads_results: bool = field(default=True, compare=False)
    """Whether the script looks at what the calls returned or what was said afterwards."""


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
    """Return the conversation of a valid request. Consecutive messages of one role count as one, and what a message of
    the role `system` says counts as said by the user.

    If it begins with a compaction block, the exchanges that the block hides come first.
    """
    runs: list[tuple[str, list[dict[str, Any]]]] = []
    hidden: tuple[Exchange, ...] = ()
    open_text: str | None = None
    messages = body["messages"]
    if (block := first_block(messages)) is not None:
        hidden, open_text = read_trail(block["content"])
        rest = messages[0]["content"][1:]
        messages = ([messages[0] | {"content": rest}] if rest else []) + messages[1:]
        if open_text is not None:
            runs.append(("assistant", [{"type": "text", "text": open_text}]))
    for message in messages:
        role = "assistant" if message["role"] == "assistant" else "user"
        if runs and runs[-1][0] == role:
            runs[-1][1].extend(content_blocks(message["content"]))
        else:
            runs.append((role, list(content_blocks(message["content"]))))
    exchanges = list(hidden)
    opening: tuple[str, ...] = ()
    if runs and runs[0][0] == "user":
        opening = _texts(runs.pop(0)[1])
    if exchanges and opening:
        # Behind a block there is no opening message: this is said after the last hidden turn.
        exchanges[-1] = replace(exchanges[-1], texts=(*exchanges[-1].texts, *opening))
    for (_, message), (_, answer) in zip(runs[::2], runs[1::2], strict=False):
        calls = [block for block in message if block["type"] == "tool_use"]
        by_id = {block["tool_use_id"]: _result(block) for block in answer if block["type"] == "tool_result"}
        exchanges.append(
            Exchange(
                text="".join(_texts(message)),
                calls=tuple(Call(block["name"], current_input(block["name"], block["input"])) for block in calls),
                results=tuple(by_id[block["id"]] for block in calls if block["id"] in by_id),
                texts=_texts(answer),
            )
        )
    system = "\n".join(str(block["text"]) for block in content_blocks(body.get("system")))
    return Conversation(system, opening, tuple(exchanges))


def open_answer(messages: Sequence[dict[str, Any]]) -> str | None:
    """Return the text of the assistant message that ends valid messages; None if they end with the user."""
    if messages[-1]["role"] != "assistant":
        return None
    return "".join(_texts(content_blocks(messages[-1]["content"])))


def as_described(call: Call, body: dict[str, Any]) -> dict[str, Any]:
    """Return the call's input with the names that the request's tools have: a conversation that began with an older
    version has its former ones."""
    schemas: dict[str, Any] = {tool.get("name"): tool.get("input_schema") or {} for tool in body.get("tools") or ()}
    return former_input(call.tool, call.input, schemas.get(call.tool, {}).get("properties") or call.input)


def _matches(turn: Turn, exchange: Exchange) -> bool:
    if exchange.happened is not None:
        return exchange.happened
    if turn.calls or exchange.calls:
        return tuple(Call(call.tool, current_input(call.tool, call.input)) for call in turn.calls) == exchange.calls
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


def replay(play: Play, exchanges: Sequence[Exchange]) -> list[tuple[Turn | None, bool]]:
    """Play the script against the exchanges; return the script's turn for each, and whether that turn happened."""
    played: list[tuple[Turn | None, bool]] = []
    turn: Turn | None = None
    try:
        turn = next(play)
        for exchange in exchanges:
            happened = _matches(turn, exchange)
            played.append((turn, happened))
            turn = play.send(Outcome(happened, exchange.results if happened else (), exchange.texts))
    except StopIteration:
        pass
    return played + [(None, True)] * (len(exchanges) - len(played))


def write_trail(play: Play, exchanges: Sequence[Exchange], open_text: str | None) -> str:
    """Return the last line of a block's text.

    Args:
        play: the conversation's script, from its beginning.
        exchanges: the exchanges that the block hides.
        open_text: the text of an assistant message at the very end that has no answer yet; None if there is none.
    """
    kept = []
    for exchange, (turn, happened) in zip(exchanges, replay(play, exchanges), strict=False):
        reads = turn is None or turn.reads_results
        results = [[_shorten(result.text), result.is_error, result.images] for result in exchange.results if reads]
        kept.append([happened, results, [_shorten(text) for text in exchange.texts] if reads else []])
    data = json.dumps([kept, open_text], ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    packed = base64.b64encode(zlib.compress(data, 9)).decode()
    count = len(kept)
    return f"[{count} exchange{'' if count == 1 else 's'}, digest {hashlib.sha256(data).hexdigest()[:12]}: {packed}]"


def read_trail(content: str) -> tuple[tuple[Exchange, ...], str | None]:
    """Return the hidden exchanges and the open text of a block; none if its text has no trail."""
    match = _TRAIL.search(content)
    if match is None:
        return (), None
    kept, open_text = json.loads(zlib.decompress(base64.b64decode(match[3])).decode("utf-8", "surrogatepass"))
    return (
        tuple(
            Exchange("", (), tuple(ToolResult(*result) for result in results), tuple(texts), happened)
            for happened, results, texts in kept
        ),
        open_text,
    )


def _shorten(text: str) -> str:
    if len(text) <= LONGEST_TRAIL_TEXT:
        return text
    return text[: LONGEST_TRAIL_TEXT // 2] + "\n…\n" + text[-LONGEST_TRAIL_TEXT // 2 :]


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
