"""Whatever a model says is stored as JSON that the API takes back."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.answer_blocks import ID, MAX_DEPTH, NAME, normalise_blocks

CALL = {"type": "tool_use", "id": "toolu_1", "name": "bash", "input": {"command": "true", "timeout_seconds": None}}


def test_what_keeps_the_rules_is_not_changed() -> None:
    blocks: list[dict[str, Any]] = [
        {"type": "thinking", "thinking": "", "signature": "x"},
        {"type": "text", "text": "Hi"},
        CALL,
    ]
    assert normalise_blocks(blocks, 3, ()) == (blocks, {})
    assert [list(block) for block in normalise_blocks(blocks, 3, ())[0]] == [list(block) for block in blocks]


def test_an_id_is_used_once() -> None:
    blocks, problems = normalise_blocks([CALL, CALL], 7, {"toolu_1"})
    ids = [block["id"] for block in blocks]
    assert len(set(ids)) == 2
    assert "toolu_1" not in ids
    assert not problems, "only the id was changed: the call can run"


@pytest.mark.parametrize("identifier", ["functions.bash:0", "", "x" * 300, "é", None])
def test_an_id_of_other_letters_is_replaced(identifier: str | None) -> None:
    [block], problems = normalise_blocks([{**CALL, "id": identifier}], 1, ())
    assert ID.fullmatch(block["id"])
    assert not problems


@pytest.mark.parametrize("name", ["functions.bash", "a" * 200, "", "né"])
def test_a_call_of_a_tool_with_an_impossible_name_is_not_run(name: str) -> None:
    [block], problems = normalise_blocks([{**CALL, "name": name}], 1, ())
    assert NAME.fullmatch(block["name"])
    assert "no tool named" in problems[block["id"]]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [float("inf"), float("nan"), 10**5000, nested(3000), nested(MAX_DEPTH + 1)], ids=lambda _: "value"
)
def test_input_that_json_cannot_carry_is_an_error_result(value: Any) -> None:
    [block], problems = normalise_blocks([{**CALL, "input": {"path": value}}], 1, ())
    json.dumps(block, allow_nan=False)
    assert block["id"] in problems


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.lists(st.tuples(st.text(), st.text(), _VALUES), max_size=5))
def test_any_calls_become_storable(calls: list[tuple[str, str, Any]]) -> None:
    blocks, _ = normalise_blocks(
        [{"type": "tool_use", "id": a, "name": b, "input": c} for a, b, c in calls], 2, {"toolu_1"}
    )
    json.dumps(blocks, allow_nan=False)
    assert len({block["id"] for block in blocks}) == len(calls)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", block["id"] + block["name"]) for block in blocks)
