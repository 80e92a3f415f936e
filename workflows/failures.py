"""What the failure of an activity means in a workflow."""

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from domain import failures
    from domain.status import WaitingFor


def end_if_cancelled() -> None:
    """Raise what a cancel raises, if the workflow has been cancelled.

    A cancel reaches an activity that is waited for (WAIT_CANCELLATION_COMPLETED) only with a heartbeat. One that ends
    before that, well or badly, ends as if nobody had cancelled, and the request would be lost for ever.

    Raises:
        CancelledError: it has.
    """
    if workflow.cancellation_reason() is not None:
        raise asyncio.CancelledError


def reason_of(error: BaseException) -> str:
    """What an error says to a person."""
    cause = error.cause if isinstance(error, ActivityError) else error
    return getattr(cause, "message", None) or str(cause)


def out_of_use(error: ActivityError) -> str | None:
    """Why the sandbox is of no use any more, where that is what a failed step says."""
    cause = error.cause
    return failures.out_of_use(cause.type if isinstance(cause, ApplicationError) else None)


def responsible_party(error: ActivityError) -> tuple[WaitingFor, str]:
    """Who can mend a failed step, and what they are told.

    Raises:
        ActivityError: the same one, where nobody can, or where it is a cancellation.
    """
    if is_cancelled_exception(error):
        raise error
    cause = error.cause
    kind, details = (cause.type, cause.details) if isinstance(cause, ApplicationError) else (None, ())
    verdict = failures.judge_failure(kind, reason_of(error), details)
    if verdict.waiting_for is None:
        raise error
    return verdict.waiting_for, verdict.reason
