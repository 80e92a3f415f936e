"""The tools as the model sees them, and the check of their input."""

import json

import pytest

from domain.errors import InvalidToolInput
from domain.tools import check_tool_input, render_tools


def test_tools_are_strict() -> None:
    sent = {tool["name"]: tool for tool in json.loads(render_tools())}
    assert len(sent) == 7
    for tool in sent.values():
        schema = tool["input_schema"]
        assert tool["strict"] is True
        assert schema["additionalProperties"] is False
        assert set(schema["required"]) == set(schema["properties"])


@pytest.mark.parametrize(
    ("tool", "given"),
    [
        ("bash", {"command": "ls"}),
        ("bash", {"command": "", "timeout_seconds": None}),
        ("bash", {"command": "ls", "timeout_seconds": "5"}),
        ("bash", {"command": "ls", "timeout_seconds": None, "cwd": "/"}),
        ("take_screenshot", {"path": "http://elsewhere/"}),
        ("glob", []),
    ],
)
def test_inputs_that_do_not_fit(tool: str, given: object) -> None:
    with pytest.raises(InvalidToolInput, match="was not run"):
        check_tool_input(tool, given)
