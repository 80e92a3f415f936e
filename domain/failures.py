"""Decide what a failed activity means for the build: it fails, or it waits for a person and then tries again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from domain.status import Dependency, WaitingFor

ROWS_ARE_AHEAD = "RowsAreAhead"
ROWS_ARE_BEHIND = "RowsAreBehind"

ROWS_MOVED = frozenset({ROWS_ARE_AHEAD, ROWS_ARE_BEHIND})
"""Types of errors after which a run takes its state from the build's rows."""

_FATAL = frozenset({"BuildFailed", "AccountSuspended"})
_STORE_ERRORS = frozenset({"SnapshotFailed", "StoreUnavailable"})


_SANDBOX_PROBLEMS: Mapping[str, str] = {
    "SandboxGone": "the sandbox was lost",
    "SandboxFull": "the sandbox's disk was full",
    "SandboxUnavailable": "the sandbox could not be reached",
    "SandboxOverloaded": "so many processes ran in the sandbox that none could be started",
}


def sandbox_problem(kind: str | None) -> str | None:
    """Return for founder and agent why a sandbox is unusable, by an application error's type; None for other errors."""
    return _SANDBOX_PROBLEMS.get(kind or "")


DATABASE_UNAVAILABLE = "DatabaseUnavailable"
"""Error type if the database did not answer."""

WORKER_STOPPED = "WorkerStopped"
"""Error type of an attempt that a stopping worker has ended. Temporal tries again on another worker."""

_OUTAGES: Mapping[str, Dependency] = {
    "StoreUnavailable": Dependency.STORE,
    "SandboxUnavailable": Dependency.SANDBOX,
    "OutcomeUnknown": Dependency.SANDBOX,
    "ModelCallFailed": Dependency.MODEL,
    "LostCall": Dependency.MODEL,
    "BrokenStream": Dependency.MODEL,
}
BILLED_FAILURES = frozenset({"LostCall", "BrokenStream"})
"""Error types of model calls that may be billed although they failed."""

SANDBOX_OVERLOADED = "SandboxOverloaded"
"""No outage, although it is a SandboxUnavailable: only this sandbox is unusable, and another takes its place."""


def outage_of(kind: str | None, details: Sequence[Any] = ()) -> Dependency | None:
    """Return the dependency whose outage an application error reports; None if it reports something else.

    The error's details may name it, such as the store for a snapshot that failed because of it.
    """
    if kind is not None and kind in _OUTAGES:
        return _OUTAGES[kind]
    if kind == "SnapshotFailed" and details and details[0] in {each.value for each in Dependency}:
        return Dependency(details[0])
    return None


def attempts_before_waiting(kind: str | None) -> int:
    """How many attempts of an activity meet an outage before the build waits for its end.

    They take half a minute. A model call that may be billed is attempted less often.
    """
    return 4 if kind in BILLED_FAILURES or kind == SANDBOX_OVERLOADED else 6


@dataclass(frozen=True)
class FailureVerdict:
    """`waiting_for` is None if the build fails. `reason` is for the founder."""

    waiting_for: WaitingFor | None
    reason: str


def judge_failure(kind: str | None, message: str, details: Sequence[Any]) -> FailureVerdict:
    """Decide by an application error's type; its text is passed on, never matched.

    An unknown error makes the build wait for an operator, not fail: a build that waits has lost nothing.
    """
    if kind in _FATAL or kind in ROWS_MOVED:
        return FailureVerdict(None, message)
    if kind == "NeedsPerson" and details:
        return FailureVerdict(WaitingFor(details[0]), message)
    if kind in _STORE_ERRORS:
        return FailureVerdict(WaitingFor.STORE, message)
    return FailureVerdict(WaitingFor.OPERATOR, message)
