"""What a failed activity means for the build: it fails, or a person is asked and it tries again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from domain.status import WaitingFor

_FATAL = {"BuildFailed", "TurnOfAnotherRun", "AccountSuspended"}
_OF_THE_STORE = {"SnapshotFailed", "StoreUnavailable"}


_OUT_OF_USE = {
    "SandboxGone": "the sandbox was lost",
    "SandboxFull": "the sandbox's disk was full",
    "SandboxUnavailable": "the sandbox could not be reached",
}


def out_of_use(kind: str | None) -> str | None:
    """Why a sandbox is of no use any more, for founder and agent, by an application error's type; None for others."""
    return _OUT_OF_USE.get(kind or "")


@dataclass(frozen=True)
class Verdict:
    """`waiting_for` is None when the build fails. `reason` is for the founder."""

    waiting_for: WaitingFor | None
    reason: str


def judge_failure(kind: str | None, message: str, details: Sequence[Any]) -> Verdict:
    """Decide from an application error's type; its text is shown, never matched.

    Whatever is not known to be final is worth a person's look: a build that waits has lost nothing.
    """
    if kind in _FATAL:
        return Verdict(None, message)
    if kind == "NeedsPerson" and details:
        return Verdict(WaitingFor(details[0]), message)
    if kind in _OF_THE_STORE:
        return Verdict(WaitingFor.STORE, message)
    return Verdict(WaitingFor.OPERATOR, message)
