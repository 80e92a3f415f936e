"""Founders' briefs, products' manifests, and the agent's prompt."""

import json
from typing import Any

import pytest

from domain.brief import BRIEF_MAX_BYTES, MAX_DEPTH, Interview, brief_from_idea, find_unstorable, parse_brief
from domain.errors import InvalidBrief, InvalidInput, InvalidToolInput
from domain.product import count_tests, parse_product_manifest
from domain.prompt import render_system_prompt
from domain.tools import TOOLS, check_tool_input, render_tools

GOOD = {"name": "Pantry", "problem": "Food is thrown away.", "features": ["A list", "A reminder"]}


def _nested(levels: int) -> list[Any]:
    value: list[Any] = ["deep"]
    for _ in range(levels - 1):
        value = [value]
    return value


def test_a_brief_keeps_what_it_does_not_know() -> None:
    assert parse_brief(json.dumps(GOOD | {"more": _nested(MAX_DEPTH - 1)})).name == "Pantry"
    assert parse_brief(json.dumps(GOOD | {"tone": "warm"})).model_dump() == GOOD | {"tone": "warm"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ("[]", "not an idea brief: it is not a JSON object"),
        (json.dumps({"name": "x"}), "problem"),
        (json.dumps(GOOD | {"features": []}), "features"),
        (json.dumps(GOOD | {"name": " "}), "name"),
        (json.dumps(GOOD | {"name": "a\x00b"}), "NUL character or a lone surrogate in name"),
        (json.dumps(GOOD | {"more": {"deep": ["ok", "\ud800"]}}), r"more.deep\[1\]"),
        (json.dumps(GOOD | {"more": "x" * BRIEF_MAX_BYTES}), "larger than 64 KB"),
        (json.dumps(GOOD | {"more": _nested(MAX_DEPTH)}), "nested more than 64 levels"),
        ("[" * 50_000, "nested more than 64 levels"),
    ],
)
def test_bad_briefs_say_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(InvalidBrief, match=said):
        parse_brief(text)


def test_unstorable_keys_are_found() -> None:
    assert find_unstorable({"a": {"b\x00": 1}}) == "a key"
    assert find_unstorable({"a": [1, None, "fine"]}) is None


def test_only_answered_questions_reach_the_agent() -> None:
    interview = Interview.model_validate(
        {"questions": [{"id": "1", "text": "Who?"}, {"id": "2", "text": "Why?"}], "answers": {"2": "Waste.", "1": " "}}
    )
    assert interview.answered() == [{"question": "Why?", "answer": "Waste."}]


def test_an_idea_becomes_a_brief() -> None:
    brief = brief_from_idea("an app  for sharing garden tools with neighbours")
    assert brief["problem"] == "an app for sharing garden tools with neighbours"
    assert parse_brief(json.dumps(brief)).name == "App Sharing"
    assert parse_brief(json.dumps(brief_from_idea("!!!"))).name == "My Product"


def test_the_prompt_holds_brief_interview_and_goal_verbatim() -> None:
    brief = {"name": 'Q"uo\\te', "features": ["ünï", "{curly}"]}
    answers = [{"question": "Why {so}?", "answer": "Därför"}]
    [block] = json.loads(render_system_prompt(brief, answers, "Make {it} work", []))
    text = block["text"]
    assert json.JSONDecoder().raw_decode(text.split("<idea_brief>\n", 1)[1])[0] == brief
    assert json.JSONDecoder().raw_decode(text.split("<interview>\n", 1)[1])[0] == answers
    assert "<goal>\nMake {it} work\n</goal>" in text
    assert "no network" in text
    assert all(tool in text for tool in TOOLS)


def test_the_prompt_describes_the_network() -> None:
    assert "only these hosts: pypi.org" in render_system_prompt({}, [], "g", ["pypi.org"])
    assert "access to the internet" in render_system_prompt({}, [], "g", None)


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


def test_product_manifest() -> None:
    good = {"install": "true", "check": "pytest", "start": "python app.py", "port": 8000}
    assert parse_product_manifest(json.dumps(good)).port == 8000
    bad: object
    for bad in (
        {**good, "port": 80},
        {**good, "port": "8000"},
        {**good, "check": ""},
        {**good, "check": "a\x00b"},
        {"check": "x"},
        [],
        {**good, "x": 1},
    ):
        with pytest.raises(InvalidInput, match="does not fit"):
            parse_product_manifest(json.dumps(bad))
    with pytest.raises(InvalidInput, match="not valid JSON"):
        parse_product_manifest("{")


@pytest.mark.parametrize(
    ("output", "tests"),
    [
        ("....\n----\nRan 4 tests in 0.010s\n\nOK", 4),
        ("Ran 1 test in 0.010s", 1),
        ("Ran 0 tests in 0.000s", 0),
        ("==== 3 passed, 1 warning in 0.12s ====", 3),
        ("3 passed in 0.12s", 3),
        ("\x1b[32m==== 3 passed in 0.12s ====\x1b[0m", 3),
        ("# tests 2\n# pass 2\n# fail 0", 2),
        ("Tests:       1 failed, 5 passed, 6 total", 5),
        ("      Tests  7 passed (7)", 7),
        ("  2 passing (5ms)", 2),
        ("test result: ok. 9 passed; 0 failed", 9),
        ("--- PASS: TestA (0.00s)\n--- PASS: TestB (0.00s)\nok", 2),
        ("", 0),
        ("all good", 0),
        ("no tests ran in 0.01s", 0),
    ],
)
def test_counting_tests(output: str, tests: int) -> None:
    assert count_tests(output) == tests
