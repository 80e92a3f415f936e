"""The tools as the model sees them, and the check of their input."""

import json
import re
from typing import Any

import pytest

from activities.worker_tools import WORKER_TOOLS
from clients.sandbox_runner import CHANGES, QUERIES
from domain.errors import InvalidToolInput
from domain.former_inputs import current_input, former_input
from domain.tools import TOOLS, BashInput, RunsIn, Tool, ToolInput, check_tool_input, render_tools


def test_tools_are_strict() -> None:
    sent = {tool["name"]: tool for tool in json.loads(render_tools())}
    assert list(sent) == list(TOOLS)
    for tool in sent.values():
        schema = tool["input_schema"]
        assert tool["strict"] is True
        assert schema["additionalProperties"] is False
        assert set(schema["required"]) == set(schema["properties"])


def test_steps_are_sent_in_the_strict_subset() -> None:
    schema = TOOLS["look"].sent_schema()
    assert set(schema) == {"type", "properties", "required", "additionalProperties"}
    assert schema["required"] == ["path", "viewport", "steps", "full_page"]
    steps = schema["properties"]["steps"]
    assert set(steps) == {"type", "items", "description"}
    step = steps["items"]
    assert (step["required"], step["additionalProperties"]) == (["action", "selector", "text"], False)
    assert step["properties"]["action"]["enum"] == ["click", "fill", "press", "wait"]
    assert not any(word in json.dumps(schema) for word in ("$ref", "$defs", "maxItems", "default", "anyOf"))


@pytest.mark.parametrize(
    ("tool", "given"),
    [
        ("bash", {"timeout_ms": None}),
        ("bash", {"command": "", "timeout_ms": None}),
        ("bash", {"command": "ls", "timeout_ms": "5"}),
        ("bash", {"command": "ls", "timeout_ms": 120}),
        ("bash", {"command": "ls", "timeout_ms": None, "cwd": "/"}),
        ("read_file", {"file_path": "a", "view_range": [1]}),
        ("read_file", {"path": "a", "start_line": "1", "line_count": None}),
        ("take_screenshot", {"path": "http://elsewhere/"}),
        ("look", {"path": "rooms", "viewport": "mobile", "steps": [], "full_page": False}),
        ("look", {"path": "/", "viewport": "tablet", "steps": [], "full_page": False}),
        ("look", {"path": "/", "steps": [{"action": "hover", "selector": "a", "text": ""}]}),
        ("look", {"path": "/", "steps": [{"action": "click", "selector": "", "text": ""}]}),
        ("look", {"path": "/", "steps": [{"action": "press", "selector": "", "text": ""}]}),
        ("look", {"path": "/", "steps": [{"action": "wait", "selector": "", "text": ""}] * 21}),
        ("glob", []),
    ],
)
def test_inputs_that_do_not_fit(tool: str, given: object) -> None:
    with pytest.raises(InvalidToolInput, match="was not run"):
        check_tool_input(tool, given)


def test_an_error_says_what_the_tool_takes() -> None:
    takes = r"Call it again with command \(string\), timeout_ms \(integer or null\)"
    with pytest.raises(InvalidToolInput, match=takes):
        check_tool_input("bash", {"cmd": "ls"})
    with pytest.raises(InvalidToolInput, match="in milliseconds, so 120 seconds are 120000"):
        check_tool_input("bash", {"command": "ls", "timeout_ms": 120})


def test_an_optional_field_may_be_left_out() -> None:
    assert check_tool_input("bash", {"command": "ls"}) == BashInput(command="ls", timeout_ms=None)


def test_each_description_says_when_to_use_the_tool() -> None:
    for tool in TOOLS.values():
        sentences = re.findall(r"[.:;] |\.$", tool.description)
        assert len(sentences) >= 3, f"{tool.name} is described in {len(sentences)} sentences"


@pytest.mark.parametrize(
    ("tool", "former", "current"),
    [
        ("bash", {"command": "ls", "timeout_seconds": 5}, {"command": "ls", "timeout_ms": 5000}),
        ("bash", {"command": "ls", "timeout_seconds": None}, {"command": "ls", "timeout_ms": None}),
        ("read_file", {"path": "a", "start_line": 3, "line_count": 2}, {"file_path": "a", "view_range": [3, 4]}),
        ("read_file", {"path": "a", "start_line": 3, "line_count": None}, {"file_path": "a", "view_range": [3, 0]}),
        ("read_file", {"path": "a", "start_line": None, "line_count": 2}, {"file_path": "a", "view_range": [1, 2]}),
        ("read_file", {"path": "a", "start_line": None, "line_count": None}, {"file_path": "a", "view_range": None}),
        ("write_file", {"path": "a", "content": "b"}, {"file_path": "a", "content": "b"}),
        (
            "edit_file",
            {"path": "a", "old_text": "b", "new_text": "c", "replace_all": True},
            {"file_path": "a", "old_string": "b", "new_string": "c", "replace_all": True},
        ),
        ("glob", {"pattern": "*"}, {"pattern": "*"}),
        ("take_screenshot", {"path": "/"}, {"path": "/"}),
    ],
)
def test_former_names_are_read(tool: str, former: dict[str, Any], current: dict[str, Any]) -> None:
    assert current_input(tool, former) == current
    assert current_input(tool, current) == current
    assert check_tool_input(tool, former) == check_tool_input(tool, current)
    assert current_input(tool, former_input(tool, current, former)) == current


def test_each_tool_has_its_function_where_it_runs() -> None:
    tables = {
        (RunsIn.SANDBOX, True): CHANGES,
        (RunsIn.SANDBOX, False): QUERIES,
        (RunsIn.WORKER, False): WORKER_TOOLS,
        (RunsIn.DATABASE, False): ("ask_founder",),
        (RunsIn.WORKER, True): WORKER_TOOLS,
    }
    for tool in TOOLS.values():
        if tool.runs_in is RunsIn.COMMAND:
            assert tool.command is not None
        else:
            assert tool.name in tables[tool.runs_in, tool.mutating], f"{tool.name} has no function where it runs"


class NoInput(ToolInput):
    """The input of a tool that has none."""


def test_a_tool_may_have_no_input() -> None:
    schema = Tool("list_ports", "List open ports.", NoInput, RunsIn.SANDBOX).sent_schema()
    assert schema == {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


@pytest.mark.parametrize(
    ("runs_in", "mutating", "command"),
    [
        (RunsIn.COMMAND, True, None),
        (RunsIn.COMMAND, False, str),
        (RunsIn.SANDBOX, True, str),
        (RunsIn.WORKER, True, None),
    ],
)
def test_an_entry_that_contradicts_itself_is_refused(
    runs_in: RunsIn, mutating: bool, command: type[str] | None
) -> None:
    with pytest.raises(ValueError, match="The tool odd"):
        Tool("odd", "Does what it should not.", NoInput, runs_in, mutating=mutating, command=command)
