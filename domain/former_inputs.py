"""Inputs of tool calls under the names that fields had before, as today's tools take them.

Conversations that began with the former names keep them, and calls that were recorded with them are applied again after
a workspace was lost. A model that has just been told of other names may also go on with those it used before.
"""

from collections.abc import Collection, Mapping
from typing import Any

FORMER_NAMES: Mapping[str, Mapping[str, str]] = {
    "read_file": {"path": "file_path"},
    "write_file": {"path": "file_path"},
    "edit_file": {"path": "file_path", "old_text": "old_string", "new_text": "new_string"},
}
"""Today's name of a field by its former one, by tool."""

TO_THE_END = 0
"""The end of a `view_range` that goes as far as one answer does."""


def current_input(tool: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the input with today's names. Names that are today's already stay; values are not checked."""
    names = FORMER_NAMES.get(tool, {})
    renamed = {names.get(field, field): value for field, value in fields.items() if names.get(field) not in fields}
    if tool == "bash" and "timeout_seconds" in renamed:
        seconds = renamed.pop("timeout_seconds")
        renamed.setdefault("timeout_ms", seconds * 1000 if _is_number(seconds) else seconds)
    if tool == "read_file" and not {"start_line", "line_count"}.isdisjoint(renamed):
        start, count = renamed.pop("start_line", None), renamed.pop("line_count", None)
        renamed.setdefault("view_range", _view_range(start, count))
    return renamed


def former_input(tool: str, fields: Mapping[str, Any], properties: Collection[str]) -> dict[str, Any]:
    """Return an input of today's names with the former ones, as far as the properties of a schema have those."""
    if set(fields) <= set(properties):
        return dict(fields)
    former = {new: old for old, new in FORMER_NAMES.get(tool, {}).items()}
    renamed = {former[field] if former.get(field) in properties else field: fields[field] for field in fields}
    if tool == "bash" and "timeout_seconds" in properties and "timeout_ms" in renamed:
        milliseconds = renamed.pop("timeout_ms")
        renamed["timeout_seconds"] = milliseconds and milliseconds // 1000
    if tool == "read_file" and "line_count" in properties and "view_range" in renamed:
        first, last = renamed.pop("view_range") or (None, None)
        renamed |= {"start_line": first, "line_count": last - first + 1 if last else None}
    return {field: value for field, value in renamed.items() if field in properties or value is not None}


def _view_range(start: object, count: object) -> object:
    """The lines as a range; what is no number stays as it came, so that the check of the input refuses it."""
    if start is None and count is None:
        return None
    if not all(each is None or _is_number(each) for each in (start, count)):
        return [start, count]
    first = start if isinstance(start, int) else 1
    return [first, first + count - 1 if isinstance(count, int) else TO_THE_END]


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
