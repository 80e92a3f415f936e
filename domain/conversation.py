"""Read stored messages and results of tools for people. What is returned is plain text and JSON, never markup."""

import json
from dataclasses import dataclass
from typing import Any

from domain.answer import input_of
from domain.tool_output import parse_stored_blocks

_HASH = "sha256:"

IMAGE_MARK = f'"data":"{_HASH}'
"""What a stored result has in its JSON text if it contains an image. No text in a result can contain it, because quotes
in it are escaped."""


@dataclass(frozen=True)
class ResultText:
    """A text of a tool's result."""

    text: str


@dataclass(frozen=True)
class ResultImage:
    """An image of a tool's result; `sha256` names it in the object store."""

    sha256: str


def text_of_answer(stored: str) -> str:
    """The text of a stored answer, without its tool calls and its reasoning."""
    blocks = parse_stored_blocks(stored)
    texts = (str(block.get("text", "")) for block in blocks if block.get("type") == "text")
    return str(_sendable("\n\n".join(texts).strip()))


def input_of_call(stored: str, tool_use_id: str) -> dict[str, Any]:
    """The input of a tool call of a stored answer; empty if the answer does not have it."""
    try:
        value = input_of(parse_stored_blocks(stored), tool_use_id)
    except LookupError:
        return {}
    return dict(_sendable(value)) if isinstance(value, dict) else {}


def read_result(stored: str) -> list[ResultText | ResultImage]:
    """The texts and images of a stored result, in order."""
    parts: list[ResultText | ResultImage] = []
    for block in _sendable(json.loads(stored))["content"]:
        if block.get("type") == "text":
            parts.append(ResultText(str(block.get("text", ""))))
        elif block.get("type") == "image":
            parts.append(ResultImage(str(block["source"]["data"]).removeprefix(_HASH)))
    return parts


def image_mark(sha256: str) -> str:
    """What a stored result has in its JSON text if it contains the image with this hash."""
    return f'{IMAGE_MARK}{sha256}"'


def _sendable(value: Any) -> Any:
    """The value without lone surrogates, which UTF-8 does not have."""
    return json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))
