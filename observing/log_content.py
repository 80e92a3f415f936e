"""Keeps what people and agents have written out of the logs.

The text of an error may quote the output of a sandbox, the answer of a model or a founder's words. A log line has the
error's type, where it was raised, and its text only if the program alone can have written it. The whole text is where
the founder's data is: in Temporal's history, and as a reason in the rows of the build.
"""

import os
import traceback
from collections.abc import Iterator
from hashlib import sha256
from types import TracebackType
from typing import Any, TextIO

from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError
from structlog.typing import EventDict
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from domain.errors import (
    AccountSuspended,
    DependencyUnavailable,
    KillSwitchOn,
    Misconfigured,
    NoPermit,
    RateLimited,
    StaleClaim,
    StoreUnavailable,
)

SHOWN_WHOLE = (
    AccountSuspended,
    DependencyUnavailable,
    KillSwitchOn,
    Misconfigured,
    NoPermit,
    RateLimited,
    StaleClaim,
    StoreUnavailable,
    RPCError,
)
"""Errors whose text is shown. No founder, agent or model has a part in it."""

_CORE_FIELDS = frozenset({"error", "attempt", "namespace", "run_id", "task_queue", "workflow_id"})
"""What is shown of a line of the core of Temporal's SDK. Its errors are those of connections and of the server."""

_LONGEST_CHAIN = 8
"""Errors of a chain of causes that are shown, and levels of groups."""

_MOST_FRAMES = 50

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def hash_of_user(user_id: str) -> str:
    """A user in the log: the same one each time, and not by name."""
    return sha256(user_id.encode()).hexdigest()[:12]


def without_content(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Replace errors and users' ids in a log line. A processor of structlog."""
    if (user_id := event.pop("user_id", None)) is not None:
        event["user"] = hash_of_user(str(user_id))
    for name, value in event.items():
        if name != "exc_info" and isinstance(value, BaseException):
            event[name] = description_of(value)
    if (core := event.pop("temporal_log", None)) is not None:
        event.update({name: value for name, value in core.fields.items() if name in _CORE_FIELDS})
    if event.get("logger") == "asyncio":  # its further lines show tasks with the errors that ended them
        event["event"] = str(event["event"]).partition("\n")[0]
    return event


def description_of(error: BaseException) -> str:
    """An error in a line: its text if that may be shown, else its type and the types of its causes."""
    if isinstance(error, SHOWN_WHOLE) and str(error):
        return str(error)
    return ", caused by ".join(": ".join(filter(None, (_name_of(each), _text_of(each)))) for each in _chain_of(error))


def traceback_of(exc_info: ExcInfo) -> list[dict[str, Any]]:
    """An error and its causes, as structlog's own transformer gives them, without texts that may not be shown."""
    return _stacks_of(exc_info[1], _LONGEST_CHAIN)


def print_traceback(stream: TextIO, exc_info: ExcInfo) -> None:
    """Write the same for people. A formatter of exceptions for structlog's console."""
    stream.write("\n")
    _print(stream, traceback_of(exc_info), "")


def _print(stream: TextIO, stacks: list[dict[str, Any]], indent: str) -> None:
    for stack in reversed(stacks):
        for frame in stack["frames"]:
            stream.write(f'{indent}  File "{frame["filename"]}", line {frame["lineno"]}, in {frame["name"]}\n')
        stream.write(indent + ": ".join(filter(None, (stack["exc_type"], stack["exc_value"]))) + "\n")
        for inner in stack["exceptions"]:
            _print(stream, inner, f"{indent}    ")


def _stacks_of(error: BaseException, levels: int) -> list[dict[str, Any]]:
    return [
        {
            "exc_type": _name_of(each),
            "exc_value": _text_of(each),
            "is_cause": index > 0,
            "frames": [
                {"filename": frame.f_code.co_filename, "lineno": line, "name": frame.f_code.co_name}
                for frame, line in list(traceback.walk_tb(each.__traceback__))[-_MOST_FRAMES:]
            ],
            "exceptions": [_stacks_of(inner, levels - 1) for inner in each.exceptions]
            if isinstance(each, BaseExceptionGroup) and levels > 1
            else [],
        }
        for index, each in enumerate(_chain_of(error))
    ]


def _chain_of(error: BaseException) -> Iterator[BaseException]:
    """The error, what caused it, and so on."""
    current: BaseException | None = error
    seen = set[int]()
    while current is not None and id(current) not in seen and len(seen) < _LONGEST_CHAIN:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _name_of(error: BaseException) -> str:
    """Its type. An error of an activity has the name of the one that it was made from."""
    return (isinstance(error, ApplicationError) and error.type) or type(error).__name__


def _text_of(error: BaseException) -> str:
    """What may be shown of its text."""
    if isinstance(error, SHOWN_WHOLE):
        return str(error)
    if isinstance(error, ValidationError):
        kinds = sorted(
            {each["type"] for each in error.errors(include_url=False, include_context=False, include_input=False)}
        )
        return f"{error.title} has {', '.join(kinds)}"
    if isinstance(error, DBAPIError):
        state = getattr(error.orig, "sqlstate", None)
        return " ".join(filter(None, (type(error.orig).__name__, state)))
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return ""
