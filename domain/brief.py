"""Validate what a founder provides: the idea brief and the interview."""

import json
import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from domain.errors import InvalidBrief
from domain.text import is_storable

BRIEF_MAX_BYTES = 64 * 1024
"""The largest idea brief, as JSON in UTF-8."""

INTERVIEW_MAX_BYTES = 128 * 1024

GOAL_MAX_CHARACTERS = 20_000

MESSAGE_MAX_CHARACTERS = 10_000
"""The longest message that a founder may send to the agent."""

NOT_BLANK = r"\S"
"""Requires a character that is not a space. The JSON schema needs it, as it cannot express that text is stripped."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=10_000, pattern=NOT_BLANK)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=120, pattern=NOT_BLANK)]

MAX_DEPTH = 64
"""How deep arrays and objects may be nested. The JSON parsers elsewhere have limits not far above this."""


def is_too_deep(value: Any) -> bool:
    """Whether arrays and objects are nested more than `MAX_DEPTH` levels deep."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            item
            for outer in level
            if isinstance(outer, dict | list)
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return bool(level)


def find_unstorable(value: Any, path: str = "") -> str | None:
    """Return the path of the first string that PostgreSQL cannot store (NUL, lone surrogate), or None."""
    if isinstance(value, str):
        return None if is_storable(value) else (path or "text")
    if isinstance(value, dict):
        pairs = [(f"{path}.{key}" if path else str(key), item) for key, item in value.items()]
        pairs += [(f"{path or 'object'} key", key) for key in value]
    elif isinstance(value, list):
        pairs = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    else:
        return None
    return next((location for where, item in pairs if (location := find_unstorable(item, where))), None)


class IdeaBrief(BaseModel):
    """The idea. Further fields are kept and shown to the agent verbatim."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Name = Field(description="The product's name.")
    problem: Text = Field(description="The problem that it solves, and for whom.")
    features: list[Text] = Field(min_length=1, max_length=50, description="What the first version must have.")


class Question(BaseModel):
    """One question of an understanding session."""

    model_config = ConfigDict(frozen=True)

    id: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    text: Text


INTERVIEW_QUESTIONS = (
    Question(id="first_users", text="Who are the first ten people that should use this?"),
    Question(id="today", text="How do they solve the problem today?"),
    Question(id="first_version", text="What must the first version prove?"),
    Question(id="look", text="How should it feel when someone opens it?"),
    Question(id="money", text="How will it earn money one day?"),
)
"""What a founder is asked, unless someone asks other questions."""


class Interview(BaseModel):
    """An understanding session: questions, and answers by question id."""

    model_config = ConfigDict(frozen=True)

    questions: list[Question] = Field(default_factory=list, max_length=200)
    answers: dict[str, Annotated[str, StringConstraints(max_length=10_000)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _ids_match(self) -> "Interview":
        ids = [question.id for question in self.questions]
        if len(ids) != len(set(ids)):
            raise ValueError("question ids must be unique")
        if unknown := sorted(set(self.answers) - set(ids)):
            raise ValueError(f"answers to unknown questions: {', '.join(unknown)}")
        return self

    def answered(self) -> list[dict[str, str]]:
        """Return what the agent sees: `{question, answer}` in the order of the questions, without unanswered ones."""
        return [
            {"question": question.text, "answer": self.answers[question.id]}
            for question in self.questions
            if self.answers.get(question.id, "").strip()
        ]


def parse_brief(text: str) -> IdeaBrief:
    """Parse an idea brief from JSON text.

    Raises:
        InvalidBrief: the text is not JSON, not a brief, too large, nested too deep, or has characters that cannot be
            stored.
    """
    if len(text.encode("utf-8", "surrogatepass")) > BRIEF_MAX_BYTES:
        raise InvalidBrief(f"The idea brief is larger than {BRIEF_MAX_BYTES // 1024} KB. Shorten it.")
    try:
        data = json.loads(text)
        json.dumps(data, allow_nan=False)  # `loads` also accepts NaN and Infinity, which are not JSON
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise InvalidBrief(f"The idea brief is not valid JSON: {error}. Correct it.") from error
    if is_too_deep(data):
        raise _too_deep()
    if where := find_unstorable(data):
        raise InvalidBrief(f"The idea brief has a NUL character or a lone surrogate in {where}. Remove it.", where)
    try:
        return IdeaBrief.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        problem = f"{field}: {first['msg']}" if field else "it is not a JSON object"
        raise InvalidBrief(
            f"This is not an idea brief: {problem}. It needs a name, a problem and features.", field
        ) from error


def _too_deep() -> InvalidBrief:
    return InvalidBrief(f"The idea brief is nested more than {MAX_DEPTH} levels deep. Flatten it.")


def brief_from_idea(idea: str) -> dict[str, Any]:
    """Make an idea brief from one sentence, for a founder who has nothing else."""
    sentence = " ".join(idea.split())
    words = re.findall(r"[^\W_]+", sentence)
    skipped = {"a", "an", "the", "for", "of", "to", "and", "that", "with", "my", "in", "on"}
    title = [word for word in words if word.lower() not in skipped][:2] or ["My", "Product"]
    return {"name": " ".join(word.capitalize() for word in title)[:120], "problem": sentence, "features": [sentence]}
