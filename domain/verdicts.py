"""What the reaper does about a build or preview, judged from evidence. Nothing is ended because something is absent."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, StrEnum, auto

LEAST_CLOSED = 5
CLOSED_SHARE = 0.02
"""A look that would close more builds than `LEAST_CLOSED`, and more than this share of the open ones, closes none."""


class WorkflowFate(StrEnum):
    """What Temporal says about a workflow's latest run."""

    OPEN = "open"
    """It runs, or has a status that this version does not know."""
    UNKNOWN = "unknown"
    """It is not in this namespace. That proves nothing: the client may be connected to another namespace, or the
    workflow may be past the namespace's retention."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    TERMINATED = "terminated"
    TIMED_OUT = "timed out"

    @property
    def has_ended(self) -> bool:
        """Whether Temporal itself lists the workflow as ended."""
        return self not in (WorkflowFate.OPEN, WorkflowFate.UNKNOWN)


class BuildVerdict(Enum):
    """What to do about the row of a build."""

    LEAVE = auto()
    CLOSE = auto()
    """Its workflow was ended without closing it: close it as failed or cancelled."""
    PROJECT = auto()
    """Its workflow completed, so the build is ready and its row is older than that: write its result to the row."""
    MARK = auto()
    """Mark it as lost and alert. Repair nothing."""
    UNMARK = auto()
    """It was marked as lost, and its workflow is there."""


@dataclass(frozen=True)
class BuildEvidence:
    """What is known about a build whose row says that its workflow was started.

    `is_bound`: the database is bound to the namespace that was asked.
    """

    is_open: bool
    is_marked: bool
    is_bound: bool
    fate: WorkflowFate


def judge_build(evidence: BuildEvidence) -> BuildVerdict:
    """Judge what to do about a build."""
    if not evidence.is_open or not evidence.is_bound:
        return BuildVerdict.LEAVE
    match evidence.fate:
        case WorkflowFate.UNKNOWN:
            return BuildVerdict.LEAVE if evidence.is_marked else BuildVerdict.MARK
        case WorkflowFate.OPEN:
            return BuildVerdict.UNMARK if evidence.is_marked else BuildVerdict.LEAVE
        case WorkflowFate.COMPLETED:
            return BuildVerdict.PROJECT
        case _:
            return BuildVerdict.CLOSE


SLICES = "0123456789abcdef"
"""First digits of builds' ids. The rows of one digit after the other are compared with what runs."""

SLICE_SECONDS = 225
"""Seconds between two slices, so that all rows are compared once an hour."""


def due_slices(compared_at: datetime | None, now: datetime) -> str:
    """The digits that are due, if the last ones were compared at `compared_at`: those of the time since, or all."""
    current = int(now.timestamp()) // SLICE_SECONDS
    last = current - len(SLICES) if compared_at is None else int(compared_at.timestamp()) // SLICE_SECONDS
    due = range(max(last, current - len(SLICES)) + 1, current + 1)
    return "".join(SLICES[each % len(SLICES)] for each in due)


def most_closed(open_builds: int) -> int:
    """The most builds that one look closes."""
    return max(LEAST_CLOSED, int(CLOSED_SHARE * open_builds))


def closes_too_many(closing: int, open_builds: int) -> bool:
    """Whether so many builds would be closed in one look that the cause is rather a mistake than their ends."""
    return closing > most_closed(open_builds)


@dataclass(frozen=True)
class SandboxEvidence:
    """What is known about a sandbox that is older than the time that an attempt needs to record it.

    `is_ours`: its build is in this database. `is_previewed`: the build's preview is open according to its row.
    `is_replaced`: the build is open, this is a workspace, and the row names a younger one that lives.
    `is_of_push`: it was made for a push, not for the build's own work. `is_overdue`: no push may take that long.
    `is_lost`: the build had ended before an operator's last recovery, so a workflow that is not found is lost.
    """

    is_ours: bool
    is_build_open: bool
    is_previewed: bool
    is_replaced: bool
    is_bound: bool
    build: WorkflowFate = WorkflowFate.UNKNOWN
    preview: WorkflowFate = WorkflowFate.UNKNOWN
    is_of_push: bool = False
    is_overdue: bool = False
    is_lost: bool = False


def needs_fates(evidence: SandboxEvidence) -> bool:
    """Whether the verdict depends on the fates of the workflows of build and preview."""
    if evidence.is_of_push:
        return False
    return evidence.is_ours and evidence.is_bound and not evidence.is_build_open and not evidence.is_previewed


def may_end_sandbox(evidence: SandboxEvidence) -> bool:
    """Whether no open build, no preview and no push can need the sandbox.

    A workflow that has closed its build's row may still be releasing the sandbox, or hand it to the preview. If one of
    the two workflows has ended in this namespace, the other is not found because it never began or ended long ago.
    If neither is found, only a recovery says that they are lost: it has started every workflow that is still needed.
    """
    if not evidence.is_ours or not evidence.is_bound:
        return False
    if evidence.is_of_push:
        return evidence.is_overdue
    if evidence.is_build_open:
        return evidence.is_replaced
    fates = (evidence.build, evidence.preview)
    if evidence.is_previewed or WorkflowFate.OPEN in fates:
        return False
    return evidence.is_lost or any(fate.has_ended for fate in fates)


def may_close_preview(fate: WorkflowFate, *, is_lost: bool) -> bool:
    """Whether the workflow of an open preview can't close its row.

    Args:
        fate: of the preview's workflow.
        is_lost: the build had ended before an operator's last recovery, so a workflow that is not found is lost.
    """
    return fate.has_ended or (is_lost and fate is WorkflowFate.UNKNOWN)


@dataclass(frozen=True)
class ObjectEvidence:
    """What is known about an object of a snapshot in the store.

    `has_row`: there is a row with its number. `is_named`: a row of a snapshot that is stored or being taken names it.
    `is_old`: it is older than a day. `is_trusted`: the database is bound here and no older than the store.
    """

    is_ours: bool
    has_row: bool
    is_named: bool
    is_old: bool
    is_trusted: bool


def may_doom_object(evidence: ObjectEvidence) -> bool:
    """Whether to write the object's tombstone: a row says that it is superfluous, or no truth can name it any more."""
    if not evidence.is_ours or evidence.is_named:
        return False
    return evidence.has_row or (evidence.is_old and evidence.is_trusted)


def may_delete_object(evidence: ObjectEvidence, *, is_due: bool) -> bool:
    """Whether to delete the object of a tombstone."""
    return is_due and evidence.is_trusted and not evidence.is_named
