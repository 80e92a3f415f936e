"""What an activity's failure or a cancel means for a workflow."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from domain import failures
    from domain.payloads import PermitClaim
    from domain.status import Dependency, WaitingFor

T = TypeVar("T")


def end_if_cancelled() -> None:
    """Raise CancelledError if the workflow has been cancelled.

    A cancel reaches an activity that is waited for (WAIT_CANCELLATION_COMPLETED) only with a heartbeat. An activity
    that ends before that ends as if there were no cancel, and the request would be lost for ever. See ADR 0002.

    Raises:
        CancelledError: the workflow has been cancelled.
    """
    if workflow.cancellation_reason() is not None:
        raise asyncio.CancelledError


async def shielded(cleanup: Coroutine[Any, Any, T]) -> T:
    """Run cleanup to completion even if the workflow is cancelled meanwhile, and return its result."""
    task = asyncio.create_task(cleanup)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    return task.result()


def reason_of(error: BaseException) -> str:
    """The text of an error that people read."""
    cause = error.cause if isinstance(error, ActivityError) else error
    return getattr(cause, "message", None) or str(cause)


def sandbox_problem(error: ActivityError) -> str | None:
    """Why the sandbox can no longer be used, if that is why the step failed; otherwise None."""
    cause = error.cause
    return failures.sandbox_problem(cause.type if isinstance(cause, ApplicationError) else None)


def rows_moved(error: ActivityError) -> str | None:
    """The type of an error that says that the build's rows are not what this run takes them for; otherwise None."""
    cause = error.cause
    kind = cause.type if isinstance(cause, ApplicationError) else None
    return kind if kind in failures.ROWS_MOVED else None


def outage_of(error: ActivityError) -> Dependency | None:
    """The dependency whose outage has made the step fail, if that is why."""
    cause = error.cause
    return failures.outage_of(cause.type, cause.details) if isinstance(cause, ApplicationError) else None


def database_was_away(error: ActivityError) -> bool:
    """Whether the last attempt failed because the database did not answer."""
    cause = error.cause
    return isinstance(cause, ApplicationError) and cause.type == failures.DATABASE_UNAVAILABLE


def is_stale(error: ActivityError) -> bool:
    """Whether the last attempt failed because an earlier one has taken its row since."""
    return isinstance(error.cause, ApplicationError) and error.cause.type == "StaleClaim"


def missing_permit(error: ActivityError) -> PermitClaim | None:
    """Why the build has no permit to have its sandbox running, if that is why the step failed; otherwise None."""
    cause = error.cause
    if not isinstance(cause, ApplicationError) or cause.type not in ("NoPermit", "SandboxRefused"):
        return None
    return PermitClaim(held=False, reason=reason_of(error), refused=cause.type == "SandboxRefused")


def responsible_party(error: ActivityError) -> tuple[WaitingFor, str]:
    """Who can fix the cause of a failed step, and the reason that they read.

    Raises:
        ActivityError: the same error, if no person can fix it or it is a cancellation.
    """
    if is_cancelled_exception(error):
        raise error
    cause = error.cause
    kind, details = (cause.type, cause.details) if isinstance(cause, ApplicationError) else (None, ())
    verdict = failures.judge_failure(kind, reason_of(error), details)
    if verdict.waiting_for is None:
        raise error
    return verdict.waiting_for, verdict.reason
