"""Briefs, ideas and interviews as the command line reads them."""

from pathlib import Path

import pytest

from cli.inputs import read_brief, read_interview
from cli.stack.demo import EXAMPLES
from domain.brief import INTERVIEW_QUESTIONS
from domain.errors import InvalidInput

BRIEF = '{"name": "Pantry", "problem": "Food is forgotten.", "features": ["A list"], "tone": "warm"}'


def test_the_demo_answers_the_questions_of_an_interview() -> None:
    example = read_interview(EXAMPLES / "interview.json")
    assert example["questions"] == [question.model_dump() for question in INTERVIEW_QUESTIONS]


def test_brief_is_sent_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "brief.json"
    file.write_text(BRIEF)
    brief = read_brief(file, None)
    assert brief is not None
    assert list(brief) == ["name", "problem", "features", "tone"]
    from_idea = read_brief(None, "  A waitlist for my bakery ")
    assert from_idea is not None
    assert from_idea["problem"] == "A waitlist for my bakery"
    assert read_brief(None, None) is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "can't be read: No such file"),
        (b"{", "not valid JSON"),
        (b"\xff", "not UTF-8 text"),
        (b"[]", "not an idea brief: it is not a JSON object"),
        (b'{"name": "a", "problem": "b", "features": []}', "features"),
        (b'{"name": "a", "problem": "b", "features": ["c"], "price": -1e999}', "not valid JSON"),
        (b'{"name": "a", "problem": "b\\u0000", "features": ["c"]}', "NUL character or a lone surrogate in problem"),
        (b'{"name": "a", "problem": "b", "features": ["' + b"c" * 70_000 + b'"]}', "larger than 64 KB"),
    ],
)
def test_bad_brief(tmp_path: Path, content: bytes | None, says: str) -> None:
    file = tmp_path / "brief.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidInput, match=says):
        read_brief(file, None)


@pytest.mark.parametrize("idea", ["", "  ", "a\0b", "\ud800"])
def test_bad_idea(idea: str) -> None:
    with pytest.raises(InvalidInput):
        read_brief(None, idea)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[", "not valid JSON"),
        ("[" * 60_000, "not valid JSON"),
        ('{"questions": [], "price": NaN}', "not valid JSON"),
        ('{"questions": [{"id": "a"}]}', r"questions\.0\.text"),
        ('{"questions": [], "answers": {"a": "b"}}', "answers to unknown questions: a"),
        ('{"questions": [{"id": "a", "text": "b"}], "answers": {"a": "\\ud800"}}', "answers.a"),
    ],
)
def test_bad_interview(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "interview.json"
    file.write_text(content)
    with pytest.raises(InvalidInput, match=says):
        read_interview(file)
