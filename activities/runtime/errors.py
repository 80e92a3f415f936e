"""Turns our exceptions into `ApplicationError`s, whose type is the exception's name.

Temporal reads two things from an error: its type, and whether to try again.
"""

import functools
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import ParamSpec, TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory, FailureError

from db.errors import is_outage
from domain.errors import (
    AccountSuspended,
    BuildFailed,
    CofounderError,
    Conflict,
    InvalidInput,
    Misconfigured,
    ModelCallFailed,
    NeedsPerson,
    NoPermit,
    NotFound,
    Refused,
    RowsMoved,
    SandboxFull,
    SandboxGone,
    SandboxUnavailable,
    SnapshotFailed,
    StoreUnavailable,
    UnknownModel,
)
from domain.failures import DATABASE_UNAVAILABLE, SANDBOX_OVERLOADED, attempts_before_waiting, outage_of
from domain.names import BUILD_WORKFLOW
from domain.status import Dependency
from domain.text import blank_tokens, storable

_log = structlog.get_logger(__name__)

LONGEST_RETRY_AFTER = timedelta(seconds=60)
"""The next attempt waits at most this long, even if the model's server asks for more."""

LONGEST_MESSAGE = 300
"""Characters. An error's text goes into the history and, as a reason, into the build's row. It may quote a sandbox, so
only its beginning is kept, and tokens in it are blanked."""

_PERMANENT = (
    AccountSuspended,
    BuildFailed,
    Conflict,
    InvalidInput,
    Misconfigured,
    NeedsPerson,
    NoPermit,
    NotFound,
    Refused,
    RowsMoved,
    SandboxFull,
    SandboxGone,
    UnknownModel,
)
"""Another attempt would fail in the same way; the workflow decides what follows.

StaleClaim is not among them. An earlier attempt that wakes up late can take the row from the attempt that Temporal
waits for; the next attempt then finds the result.
"""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def application_errors(activity: Callable[Arguments, Awaitable[Result]]) -> Callable[Arguments, Awaitable[Result]]:
    """Decorates an activity, below `@activity.defn`. Cancellations and `ApplicationError`s pass unchanged.

    The history gets no cause: its text may quote what founders wrote. An error that is none of ours is a defect, of
    which the history gets only the type, and the worker's log all.
    """

    @functools.wraps(activity)
    async def with_application_errors(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return await activity(*args, **kwargs)
        except (CofounderError, SQLAlchemyError, OSError) as error:
            raise to_application_error(error).with_traceback(error.__traceback__) from None
        except FailureError:
            raise
        except Exception as error:
            _log.exception("a defect in an activity", kind=type(error).__name__)
            text = f"A defect: {type(error).__name__}. The worker's log has the details."
            raise ApplicationError(text, type=type(error).__name__).with_traceback(error.__traceback__) from None

    return with_application_errors


def to_application_error(error: CofounderError | SQLAlchemyError | OSError) -> ApplicationError:
    """The error that Temporal gets."""
    if isinstance(error, CofounderError):
        return _from_cofounder_error(error)
    if is_outage(error):
        text = "The database does not answer. Cofounder tries again; if this lasts, check DATABASE_URL and the server."
        return ApplicationError(f"{text} ({_first_line(error)})", type=DATABASE_UNAVAILABLE)
    return ApplicationError(_first_line(error), type=type(error).__name__)


def _from_cofounder_error(error: CofounderError) -> ApplicationError:
    delay = None
    if isinstance(error, ModelCallFailed) and error.retry_after_seconds is not None:
        delay = min(timedelta(seconds=max(0.0, error.retry_after_seconds)), LONGEST_RETRY_AFTER)
    # One type for all that a person has to fix: workers of another version judge by it.
    kind = NeedsPerson.__name__ if isinstance(error, NeedsPerson) else type(error).__name__
    dependency = _dependency_of(error)
    details = [error.waiting_for] if isinstance(error, NeedsPerson) else [] if dependency is None else [dependency]
    return ApplicationError(
        _quiet(str(error)),
        *details,
        type=kind,
        non_retryable=isinstance(error, _PERMANENT)
        or ((dependency is not None or kind == SANDBOX_OVERLOADED) and _build_waits_for(kind)),
        next_retry_delay=delay,
        # A worker does not log it as a failure: the build only waits its turn.
        category=ApplicationErrorCategory.BENIGN
        if isinstance(error, NoPermit)
        else ApplicationErrorCategory.UNSPECIFIED,
    )


def _dependency_of(error: CofounderError) -> Dependency | None:
    """The dependency whose outage is the cause of the error, if that is its cause."""
    cause = error.__cause__
    if isinstance(error, SnapshotFailed) and isinstance(cause, StoreUnavailable | SandboxUnavailable):
        return outage_of(type(cause).__name__)
    return outage_of(type(error).__name__)


def _build_waits_for(kind: str) -> bool:
    """Whether this attempt is the last before its build waits for the end of the outage, or takes another sandbox.

    An activity without a limit of attempts is repeated until it succeeds, and other workflows do not wait.
    """
    if not activity.in_activity():
        return False
    info = activity.info()
    is_limited = info.retry_policy is not None and info.retry_policy.maximum_attempts > 0
    return info.workflow_type == BUILD_WORKFLOW and is_limited and info.attempt >= attempts_before_waiting(kind)


def _first_line(error: BaseException) -> str:
    return _quiet((str(error).splitlines() or [type(error).__name__])[0])


def _quiet(text: str) -> str:
    """The text without what looks like a token, and not longer than the history may have it."""
    return storable(blank_tokens(text), LONGEST_MESSAGE)
