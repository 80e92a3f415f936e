"""Makes whatever a model says storable and sendable, before it is stored.

The API takes back only what fits its own rules: names and ids of certain letters, ids that are used once, JSON. A model
or a gateway does not always keep to them. What breaks a rule is replaced, and a call that had to be changed is not run:
the agent reads why.

Rules: the types of tool_use and tool_result in the Messages API's reference.
"""

import math
import re
from collections.abc import Container, Sequence
from typing import Any

Block = dict[str, Any]

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""A tool's name."""

ID = re.compile(r"[a-zA-Z0-9_-]{1,100}")
"""A call's id. It is also the name of its folder in the sandbox, so it is shorter than the API allows."""

MAX_DEPTH = 40
"""Lists and objects inside each other; deeper ones are left out."""

MAX_INTEGER = 2**63
"""Larger integers are not sent back: readers of JSON differ in what they make of them."""

_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_-]+")
_LEFT_OUT = "[left out]"


def normalise_blocks(
    blocks: Sequence[Block], turn: int, used_ids: Container[str]
) -> tuple[list[Block], dict[str, str]]:
    """Return the blocks as they can be stored and sent, and why a call can't run, by its (new) id.

    Args:
        blocks: content blocks of an answer, as the API's JSON.
        turn: the turn that they answer; part of a new id.
        used_ids: ids of the build's earlier calls.
    """
    problems: dict[str, str] = {}
    seen: set[str] = set()
    whole: list[Block] = []
    for position, block in enumerate(blocks):
        if block.get("type") != "tool_use":
            whole.append(_json_value(block, 0)[0])
            continue
        name, identifier = str(block.get("name") or ""), str(block.get("id") or "")
        new_id = _identifier(identifier, turn, position, seen, used_ids)
        seen.add(new_id)
        tool_input, changed = _json_value(block.get("input"), 0)
        if not isinstance(tool_input, dict):
            tool_input = {}
            problems[new_id] = (
                "The input of this call is not an object, or is nested too deep to be read, so it was not run. Call "
                "the tool again with the input that it describes."
            )
        elif changed:
            problems[new_id] = (
                "The input of this call has numbers or a depth that JSON can't carry, so it was not run. Call the tool "
                "again with plain values."
            )
        if not NAME.fullmatch(name):
            shown = name[:100]
            name = _NOT_IN_A_NAME.sub("_", name)[:64].strip("_") or "unnamed"
            problems[new_id] = f"There is no tool named {shown}, so nothing was run."
        rest, _ = _json_value({key: value for key, value in block.items() if key not in ("name", "id", "input")}, 0)
        whole.append(
            {**{key: rest.get(key) for key in block if key in rest}, "id": new_id, "name": name, "input": tool_input}
        )
    return whole, problems


def _identifier(identifier: str, turn: int, position: int, seen: Container[str], used: Container[str]) -> str:
    fits = ID.fullmatch(identifier) is not None
    if fits and identifier not in seen and identifier not in used:
        return identifier
    stem = (_NOT_IN_A_NAME.sub("_", identifier)[:60].strip("_") or "call") if identifier else "call"
    candidate, number = f"{stem}_t{turn}_{position}", 1
    while candidate in seen or candidate in used:
        number += 1
        candidate = f"{stem}_t{turn}_{position}_{number}"
    return candidate


def _json_value(value: Any, depth: int) -> tuple[Any, bool]:
    """Return the value as JSON can carry it, and whether it was changed."""
    if depth > MAX_DEPTH:
        return _LEFT_OUT, True
    match value:
        case dict():
            items = {str(key): _json_value(entry, depth + 1) for key, entry in value.items()}
            return {key: entry for key, (entry, _) in items.items()}, any(changed for _, changed in items.values())
        case list() | tuple():
            entries = [_json_value(entry, depth + 1) for entry in value]
            return [entry for entry, _ in entries], any(changed for _, changed in entries)
        case float() if not math.isfinite(value):
            return str(value), True
        case int() if not isinstance(value, bool) and abs(value) > MAX_INTEGER:
            return _LEFT_OUT, True
        case _:
            return value, False
