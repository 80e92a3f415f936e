"""A call is checked against the schemas that its prefix gave the model, whatever today's are."""

import json
from hashlib import md5
from typing import Any

import pytest

from domain.errors import InvalidToolInput
from domain.sent_tools import digest_of_today, mismatch, tools_of
from domain.tools import BashInput, EditFileInput, ReadFileInput, render_tools


def _stored(**schemas: dict[str, Any]) -> str:
    return json.dumps(
        [
            {
                "name": name,
                "description": "",
                "strict": True,
                "input_schema": {
                    "type": "object",
                    "properties": properties,
                    "required": list(properties),
                    "additionalProperties": False,
                },
            }
            for name, properties in schemas.items()
        ]
    )


TEXT = {"type": "string"}


def test_todays_tools_are_checked_as_strictly_as_ever() -> None:
    for tools in (tools_of(None), tools_of(render_tools())):
        expected = BashInput(command="ls", timeout_ms=5000)
        assert tools.check("bash", {"command": "ls", "timeout_ms": 5000}) == expected
        with pytest.raises(InvalidToolInput, match="at least 1 character"):
            tools.check("bash", {"command": "", "timeout_ms": None})


def test_a_field_that_the_model_was_not_told_of_is_null() -> None:
    tools = tools_of(_stored(bash={"command": TEXT}))
    assert tools.check("bash", {"command": "ls"}) == BashInput(command="ls", timeout_ms=None)


def test_a_field_that_todays_tool_has_no_more_is_left_out() -> None:
    schema = {"path": TEXT, "old_text": TEXT, "new_text": TEXT, "replace_all": {"type": "boolean"}, "reason": TEXT}
    given = {"path": "a", "old_text": "b", "new_text": "c", "replace_all": False, "reason": "d"}
    expected = EditFileInput(file_path="a", old_string="b", new_string="c", replace_all=False)
    assert tools_of(_stored(edit_file=schema)).check("edit_file", given) == expected


def test_calls_of_a_conversation_with_former_names_are_run() -> None:
    optional = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    tools = tools_of(
        _stored(
            bash={"command": TEXT, "timeout_seconds": optional},
            read_file={"path": TEXT, "start_line": optional, "line_count": optional},
        )
    )
    assert tools.check("bash", {"command": "ls", "timeout_seconds": 5}) == BashInput(command="ls", timeout_ms=5000)
    read = tools.check("read_file", {"path": "a", "start_line": 2, "line_count": None})
    assert read == ReadFileInput(file_path="a", view_range=[2, 0])


@pytest.mark.parametrize(
    ("name", "given", "problem"),
    [
        ("bash", {"command": "ls", "timeout_seconds": 5}, "timeout_seconds: Extra inputs"),
        ("bash", {}, "command: Field required"),
        ("bash", {"command": 5}, "command: must be of type string"),
        ("bash", ["ls"], "input: must be of type object"),
        ("bash", {"command": ""}, "can't be run"),
        ("glob", {"pattern": "*"}, "no tool named glob. The tools are: bash, deploy"),
        ("deploy", {"command": "x"}, "not available any more"),
    ],
)
def test_what_does_not_fit_the_prefix_is_refused(name: str, given: object, problem: str) -> None:
    with pytest.raises(InvalidToolInput, match=problem):
        tools_of(_stored(bash={"command": TEXT}, deploy={"command": TEXT})).check(name, given)


@pytest.mark.parametrize(
    ("schema", "fits", "does_not"),
    [
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, [1, None], [True, "1", 1.5]),
        ({"type": ["string", "null"]}, ["a", None], [1]),
        ({"enum": ["a", 1]}, ["a", 1], ["b", True]),
        ({"const": "a"}, ["a"], ["b"]),
        ({"type": "array", "items": {"type": "boolean"}}, [[], [True]], [[1], "x"]),
        (
            {"type": "object", "properties": {"a": {"type": "object", "required": ["b"]}}},
            [{"a": {"b": 1}}],
            [{"a": {}}],
        ),
        ({}, [1, None, {}], []),
    ],
)
def test_schemas_of_strict_mode(schema: dict[str, Any], fits: list[object], does_not: list[object]) -> None:
    assert [mismatch(schema, value) for value in fits] == [None] * len(fits)
    assert all(mismatch(schema, value) for value in does_not)


def test_a_problem_names_the_field_in_its_place() -> None:
    inner = {"type": "object", "properties": {"b": TEXT}}
    schema = {"type": "object", "properties": {"a": inner, "list": {"type": "array", "items": TEXT}}}
    assert mismatch(schema, {"a": {"b": 1}}) == "a.b: must be of type string"
    assert mismatch(schema, {"list": ["x", 1]}) == "list.1: must be of type string"


def test_the_digest_is_that_of_what_prefixes_store() -> None:
    """The database compares it with its own MD5 of a prefix's tools, and returns those that differ."""
    assert digest_of_today() == md5(render_tools().encode(), usedforsecurity=False).hexdigest()
