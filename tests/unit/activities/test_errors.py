"""How our errors reach Temporal."""

import asyncio
import dataclasses
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from temporalio import activity
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.runtime.errors import LONGEST_MESSAGE, application_errors, to_application_error
from clients.model.protocol import BrokenStream, LostCall
from domain.errors import (
    BuildFailed,
    CofounderError,
    ConversationInvalid,
    ConversationTooLong,
    InvalidInput,
    Misconfigured,
    ModelCallFailed,
    NeedsPerson,
    SandboxGone,
    SandboxOverloaded,
    SandboxUnavailable,
    SnapshotFailed,
    StaleClaim,
    StoreUnavailable,
    UnknownModel,
)
from domain.failures import DATABASE_UNAVAILABLE, outage_of, sandbox_problem
from domain.names import BUILD_WORKFLOW
from domain.payloads import BuildRef
from domain.pricing import Tokens
from domain.status import Dependency


@pytest.mark.parametrize(
    ("error", "permanent"),
    [
        (BuildFailed("no"), True),
        (InvalidInput("no"), True),
        (UnknownModel("no"), True),
        (Misconfigured("no"), True),
        (SandboxGone("no"), True),
        (SandboxUnavailable("no"), False),
        (SnapshotFailed("no"), False),
        (StaleClaim("no"), False),
        (ModelCallFailed("no"), False),
    ],
)
def test_types_and_retries(error: CofounderError, permanent: bool) -> None:
    told = to_application_error(error)
    assert (told.type, told.message, told.non_retryable) == (type(error).__name__, "no", permanent)


def test_the_details_name_the_responsible_party() -> None:
    told = to_application_error(NeedsPerson("The key is refused.", "operator"))
    assert (told.type, list(told.details), told.non_retryable) == ("NeedsPerson", ["operator"], True)


@pytest.mark.parametrize("refused", [ConversationTooLong, ConversationInvalid])
def test_a_refused_conversation_needs_the_founder(refused: type[ConversationTooLong | ConversationInvalid]) -> None:
    told = to_application_error(refused("400: no"))
    assert (told.type, list(told.details), told.non_retryable) == ("NeedsPerson", ["founder"], True)
    assert "Finish the build" in told.message


@pytest.mark.parametrize(("asked", "given"), [(None, None), (7.0, 7), (9000.0, 60), (-1.0, 0)])
def test_the_model_s_retry_after_is_kept_within_bounds(asked: float | None, given: int | None) -> None:
    told = to_application_error(ModelCallFailed("busy", asked))
    assert told.next_retry_delay == (None if given is None else timedelta(seconds=given))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionRefusedError("refused"), DATABASE_UNAVAILABLE),
        (OSError("Multiple exceptions: …"), DATABASE_UNAVAILABLE),
        (TimeoutError(), DATABASE_UNAVAILABLE),
        (DBAPIError("select 1", None, Exception("gone")), DATABASE_UNAVAILABLE),
        (DBAPIError("select 1", None, asyncpg.AdminShutdownError("terminating connection")), DATABASE_UNAVAILABLE),
        (DBAPIError("select 1", None, asyncpg.ReadOnlySQLTransactionError("a standby")), DATABASE_UNAVAILABLE),
        (DBAPIError("insert", None, asyncpg.RaiseError("not today")), "DBAPIError"),
        (OperationalError("insert", None, asyncpg.CardinalityViolationError("two rows")), "OperationalError"),
        (IntegrityError("insert", {"secret": "hidden"}, Exception("duplicate")), "IntegrityError"),
        (FileNotFoundError("no file"), "FileNotFoundError"),
    ],
)
def test_the_database_and_the_system(error: OSError | DBAPIError, kind: str) -> None:
    told = to_application_error(error)
    assert (told.type, told.non_retryable) == (kind, False)
    assert "hidden" not in told.message


def test_an_overloaded_sandbox_is_no_outage() -> None:
    told = to_application_error(SandboxOverloaded("so many processes"))
    assert outage_of(told.type, told.details) is None
    assert sandbox_problem(told.type)


class Activities:
    @activity.defn
    @application_errors
    async def work(self, given: BuildRef) -> BuildRef:
        """Fail as the input says."""
        match given.build_id:
            case "cancel":
                raise asyncio.CancelledError
            case "own":
                raise BuildFailed("The build cannot go on.")
            case "bug":
                raise KeyError("x")
        return given


async def test_the_decorator() -> None:
    work = Activities().work
    assert await work(BuildRef(build_id="fine")) == BuildRef(build_id="fine")
    with pytest.raises(asyncio.CancelledError):
        await work(BuildRef(build_id="cancel"))
    with pytest.raises(ApplicationError, match="cannot go on"):
        await work(BuildRef(build_id="own"))
    with pytest.raises(ApplicationError, match="A defect: KeyError") as raised:
        await work(BuildRef(build_id="bug"))
    assert raised.value.type == "KeyError"
    assert raised.value.__suppress_context__, "the history would have the text of the cause"


def test_what_a_sandbox_said_can_be_stored_and_is_bounded() -> None:
    told = to_application_error(SandboxUnavailable("said \x00\ud800" + "x" * 100_000))
    assert told.message.startswith("said \ufffd\ufffdx")
    assert len(told.message) == LONGEST_MESSAGE


def test_keys_in_an_error_are_blanked_and_ids_are_not() -> None:
    build = "0a0b0c0d-1111-4222-8333-944445555666"
    key = "sk-live-" + "a1B2" * 8
    told = to_application_error(SandboxUnavailable(f"build-{build}: {key} at postgresql://ada:hunter2@db/x"))
    assert told.message == f"build-{build}: *** at postgresql://***@db/x"


def _handed_over(error: CofounderError, *, attempt: int, **changes: Any) -> ApplicationError:
    """Return what Temporal gets for an attempt of an activity of a build."""
    environment = ActivityEnvironment()
    limited: dict[str, Any] = {"workflow_type": BUILD_WORKFLOW, "retry_policy": RetryPolicy(maximum_attempts=10)}
    environment.info = dataclasses.replace(environment.info, attempt=attempt, **(limited | changes))
    told = environment.run(to_application_error, error)
    assert isinstance(told, ApplicationError)
    return told


@pytest.mark.parametrize(
    ("error", "attempts", "dependency"),
    [
        (StoreUnavailable("no"), 6, "store"),
        (SandboxUnavailable("no"), 6, "sandbox"),
        (ModelCallFailed("no"), 6, "model"),
        (LostCall("no"), 4, "model"),
        (BrokenStream("no", Tokens(), None), 4, "model"),
    ],
)
def test_an_outage_is_handed_over_to_the_build(error: CofounderError, attempts: int, dependency: str) -> None:
    """The activity's own retries are short: the build waits, and says so."""
    assert not _handed_over(error, attempt=attempts - 1).non_retryable
    told = _handed_over(error, attempt=attempts)
    assert (told.non_retryable, list(told.details)) == (True, [dependency])


def test_what_can_not_wait_retries_on() -> None:
    away = SandboxUnavailable("no")
    assert not _handed_over(away, attempt=60, retry_policy=RetryPolicy()).non_retryable, "a release"
    assert not _handed_over(away, attempt=60, workflow_type="PreviewWorkflow").non_retryable
    assert not _handed_over(SnapshotFailed("it differs"), attempt=60).non_retryable, "not an outage"


def test_a_snapshot_that_fails_because_of_the_store_names_it() -> None:
    error = SnapshotFailed("It was not stored.")
    error.__cause__ = StoreUnavailable("no")
    told = to_application_error(error)
    assert outage_of(told.type, told.details) is Dependency.STORE
    assert outage_of("SnapshotFailed", []) is None
