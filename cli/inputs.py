"""What a founder brings to the command line: an idea brief and an interview, from files or a sentence."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from domain.brief import (
    GOAL_MAX_CHARACTERS,
    INTERVIEW_MAX_BYTES,
    Interview,
    brief_from_idea,
    find_unstorable,
    parse_brief,
)
from domain.errors import InvalidInput

Json = dict[str, Any]


def read_brief(file: Path | None, idea: str | None) -> Json | None:
    """The idea brief from a file or a sentence, as it will be sent.

    Raises:
        InvalidInput: it is not there, or no brief; the message says what is wrong with it.
    """
    if idea is not None:
        if not idea.strip():
            raise InvalidInput("The idea is empty. Say in a sentence what you want to build.")
        return _as_sent(json.dumps(brief_from_idea(idea)))
    return None if file is None else _as_sent(_read_text(file))


def _as_sent(text: str) -> Json:
    """The brief's JSON, unchanged, after it was found to be a brief."""
    parse_brief(text)
    sent: Json = json.loads(text)
    return sent


def read_interview(file: Path) -> Json:
    """An interview from a file, as it will be sent.

    Raises:
        InvalidInput: it is not there, or no interview.
    """
    text = _read_text(file)
    if len(text.encode(errors="replace")) > INTERVIEW_MAX_BYTES:
        raise InvalidInput(f"{file} is larger than {INTERVIEW_MAX_BYTES // 1024} KB. Shorten it.")
    try:
        sent: Json = json.loads(text)
        json.dumps(sent, allow_nan=False)
        Interview.model_validate(sent)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "interview"
        raise InvalidInput(f"{file} does not fit: {where}: {first['msg'].removeprefix('Value error, ')}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{file} is not valid JSON: {error}") from None
    if unstorable := find_unstorable(sent):
        raise InvalidInput(f"{file} has a NUL character or a lone surrogate in {unstorable}. Remove it.")
    return sent


def check_goal(goal: str) -> None:
    """Look at a goal before a project is made for it.

    Raises:
        InvalidInput: the API would not take it.
    """
    if not goal.strip():
        raise InvalidInput("The goal is empty. Say what the build is to do, or leave --goal out.")
    if len(goal.strip()) > GOAL_MAX_CHARACTERS:
        raise InvalidInput(f"The goal is longer than {GOAL_MAX_CHARACTERS} characters. Shorten it.")
    if find_unstorable(goal):
        raise InvalidInput("The goal has a NUL character or a lone surrogate. Remove it.")


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{file} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{file} is not a text in UTF-8.") from None
