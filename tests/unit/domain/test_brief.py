"""Founders' briefs and interviews."""

import json
from pathlib import Path
from typing import Any

import pytest

from domain.brief import BRIEF_MAX_BYTES, MAX_DEPTH, Interview, brief_from_idea, find_unstorable, parse_brief
from domain.errors import InvalidBrief

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


def test_an_idea_becomes_the_same_brief_on_every_page() -> None:
    # web/src/pages/new-idea/brief.test.ts reads the same file.
    for golden in json.loads((Path(__file__).parents[2] / "golden" / "ideas.json").read_text(encoding="utf-8")):
        brief = brief_from_idea(golden["idea"])
        assert brief == golden["brief"]
        assert len(json.dumps(brief, ensure_ascii=False).encode()) == golden["bytes"]
