"""Acts on many builds: what they are, how fast, and which builds they fit."""

from dataclasses import dataclass
from enum import StrEnum

from domain.erasure import why_suspended
from domain.status import WAITS, Status

MAX_RATE = 50
"""Builds a second, at most. Temporal and the database take that beside the builds that run."""

DEFAULT_RATE = 10
"""Builds a second."""

MAX_BUILDS = 50_000
"""Builds in one run, at most: all of them are written as rows in one transaction."""

BATCH_SECONDS = 20
"""A batch is what a run does in this many seconds."""

MAX_ATTEMPTS = 5
"""Give up a build after this many attempts, each in another batch."""

SAMPLE = 20
"""Builds that a dry run shows."""


class BulkAct(StrEnum):
    """What is done to each build."""

    WAKE = "wake"
    CANCEL = "cancel"
    FINISH = "finish"
    SUSPEND = "suspend"
    """Suspend the account of the build's user, once for all of their builds."""
    UNSUSPEND = "unsuspend"
    """Lift the suspension of the build's user, whether the build is open or has ended."""


class BulkState(StrEnum):
    """The state of a run."""

    RUNNING = "running"
    STOPPED = "stopped"
    """An operator stopped it. It can be resumed."""
    FINISHED = "finished"


class ItemState(StrEnum):
    """What has become of one build of a run."""

    PENDING = "pending"
    DONE = "done"
    SKIPPED = "skipped"
    """The act did not fit the build any more."""
    FAILED = "failed"


OF_ACCOUNTS = frozenset({BulkAct.SUSPEND, BulkAct.UNSUSPEND})
"""Acts on the user of a build, once for all of their builds."""


@dataclass(frozen=True)
class Candidate:
    """A build as far as it decides whether an act fits it."""

    status: Status
    is_closed: bool
    is_cancelled: bool
    """Its cancel was requested."""
    has_passed: bool
    """It has passed its checks and is about to be ready."""
    user_id: str
    is_user_suspended: bool
    is_user_being_erased: bool = False


def why_not(act: BulkAct, build: Candidate) -> str | None:
    """Say why an act does not fit a build, for operators; None if it fits."""
    if act is BulkAct.UNSUSPEND:
        if not build.is_user_suspended:
            return f"The user {build.user_id} is not suspended."
        return why_suspended(build.user_id, is_being_erased=build.is_user_being_erased)
    if build.is_closed:
        return f"The build has ended: it is {build.status}."
    if act is BulkAct.SUSPEND:
        return f"The user {build.user_id} is suspended already." if build.is_user_suspended else None
    if build.is_cancelled:
        return "The build is being cancelled."
    if act is BulkAct.WAKE and build.status not in WAITS:
        return f"The build does not wait: it is {build.status}."
    if act is BulkAct.FINISH and build.has_passed:
        return "The build has passed its checks."
    return None
