"""Turns our exceptions into `ApplicationError`s, whose type is the exception's name.

Temporal reads two things from an error: its type, and whether another attempt may help.
"""

import functools
import socket
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import ParamSpec, TypeVar

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from temporalio.exceptions import ApplicationError

from domain.errors import (
    AccountSuspended,
    BuildFailed,
    CofounderError,
    Conflict,
    InvalidInput,
    Misconfigured,
    ModelCallFailed,
    NeedsPerson,
    NotFound,
    Refused,
    SandboxFull,
    SandboxGone,
    UnknownModel,
)
from domain.text import storable

DATABASE_UNAVAILABLE = "DatabaseUnavailable"
"""Error type of an attempt that the database did not answer; the next one may fare better."""

LONGEST_RETRY_AFTER = timedelta(seconds=120)

LONGEST_MESSAGE = 2000
"""Characters. An error's text stands in history and, as a reason, in the row; it may quote what a sandbox said."""

_PERMANENT = (
    AccountSuspended,
    BuildFailed,
    Conflict,
    InvalidInput,
    Misconfigured,
    NeedsPerson,
    NotFound,
    Refused,
    SandboxFull,
    SandboxGone,
    UnknownModel,
)
"""Another attempt would fail in the same way; the workflow decides what follows.

A stale claim is not among them: when an earlier attempt wakes up late it takes the row from the one that Temporal waits
for, and that one's successor finds the result.
"""

Given = ParamSpec("Given")
Result = TypeVar("Result")


def application_errors(activity: Callable[Given, Awaitable[Result]]) -> Callable[Given, Awaitable[Result]]:
    """Decorates an activity, below `@activity.defn`. Cancellations and `ApplicationError`s pass as they are."""

    @functools.wraps(activity)
    async def with_application_errors(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        try:
            return await activity(*args, **kwargs)
        except (CofounderError, SQLAlchemyError, OSError) as error:
            raise to_application_error(error) from error

    return with_application_errors


def to_application_error(error: CofounderError | SQLAlchemyError | OSError) -> ApplicationError:
    """What Temporal is told of an error."""
    if isinstance(error, CofounderError):
        return _of_ours(error)
    if _is_connection_trouble(error):
        text = "The database does not answer. It is asked again; if this lasts, check DATABASE_URL and the server."
        return ApplicationError(f"{text} ({_first_line(error)})", type=DATABASE_UNAVAILABLE)
    return ApplicationError(_first_line(error), type=type(error).__name__)


def _of_ours(error: CofounderError) -> ApplicationError:
    delay = None
    if isinstance(error, ModelCallFailed) and error.retry_after_seconds is not None:
        delay = min(timedelta(seconds=max(0.0, error.retry_after_seconds)), LONGEST_RETRY_AFTER)
    details = [error.waiting_for] if isinstance(error, NeedsPerson) else []
    return ApplicationError(
        storable(str(error), LONGEST_MESSAGE),
        *details,
        type=type(error).__name__,
        non_retryable=isinstance(error, _PERMANENT),
        next_retry_delay=delay,
    )


def _is_connection_trouble(error: SQLAlchemyError | OSError) -> bool:
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror | PoolTimeout):
        return True
    if type(error) is OSError:
        return True  # asyncio's "Multiple exceptions", when it has tried several addresses
    return isinstance(error, DBAPIError) and not isinstance(error, IntegrityError | DataError | ProgrammingError)


def _first_line(error: BaseException) -> str:
    return storable((str(error).splitlines() or [type(error).__name__])[0], LONGEST_MESSAGE)
