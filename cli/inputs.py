"""Reads a founder's idea brief, interview, goal and secrets from files, options and standard input."""

import getpass
import json
import sys
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
    """Read the idea brief to send, from a file or a sentence. None if neither is given.

    Raises:
        InvalidInput: the file can't be read or is not a brief; the message says why.
    """
    if idea is not None:
        if not idea.strip():
            raise InvalidInput("The idea is empty. Describe in a sentence what you want to build.")
        return _check_brief(json.dumps(brief_from_idea(idea)))
    return None if file is None else _check_brief(_read_text(file))


def _check_brief(text: str) -> Json:
    """Check that the text is a brief, and return its JSON unchanged."""
    parse_brief(text)
    content: Json = json.loads(text)
    return content


def read_interview(file: Path) -> Json:
    """Read the interview to send from a file.

    Raises:
        InvalidInput: the file can't be read or is not an interview.
    """
    text = _read_text(file)
    if len(text.encode(errors="replace")) > INTERVIEW_MAX_BYTES:
        raise InvalidInput(f"{file} is larger than {INTERVIEW_MAX_BYTES // 1024} KB. Shorten it.")
    try:
        content: Json = json.loads(text)
        json.dumps(content, allow_nan=False)
        Interview.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "interview"
        raise InvalidInput(
            f"{file} is not a valid interview: {where}: {first['msg'].removeprefix('Value error, ')}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{file} is not valid JSON: {error}") from None
    if unstorable := find_unstorable(content):
        raise InvalidInput(f"{file} has a NUL character or a lone surrogate in {unstorable}. Remove it.")
    return content


def check_goal(goal: str) -> None:
    """Check a goal before its project is created.

    Raises:
        InvalidInput: the API would refuse the goal.
    """
    if not goal.strip():
        raise InvalidInput("The goal is empty. Say what the build should do, or leave --goal out.")
    if len(goal.strip()) > GOAL_MAX_CHARACTERS:
        raise InvalidInput(f"The goal is longer than {GOAL_MAX_CHARACTERS} characters. Shorten it.")
    if find_unstorable(goal):
        raise InvalidInput("The goal has a NUL character or a lone surrogate. Remove it.")


def read_secret(name: str) -> str:
    """Read the value of a secret: typed at a hidden prompt, or from standard input, without a line break at its end.

    It is never an argument: every user of a machine can see command lines.

    Raises:
        InvalidInput: it is empty or not UTF-8.
    """
    if sys.stdin.isatty():
        value = getpass.getpass(f"Value of {name} (not shown): ")
    else:
        try:
            value = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError:
            raise InvalidInput("The value is not UTF-8 text.") from None
        value = value.removesuffix("\n").removesuffix("\r")
    if not value:
        raise InvalidInput(f"There is no value. Type it at the prompt, or: cofounder secrets set {name} < FILE")
    return value


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{file} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{file} is not UTF-8 text. Save it as UTF-8.") from None
