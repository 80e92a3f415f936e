"""What an operator's recovery does about builds, decided from an inventory of rows, workflows and stored objects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from domain.status import Status
from domain.verdicts import WorkflowFate

_USUAL_SHARE = 0.05
"""A plan that changes more than this share of the open builds is refused without a confirmation."""


class Step(StrEnum):
    """What is done about one build or its preview."""

    START = "start"
    """Start a workflow over its rows: there is none."""
    RESTART = "restart"
    """Start a workflow over the rows in the place of another one, which knows more than they do or was terminated."""
    PROJECT = "project"
    """Close the row as ready, as its workflow has."""
    CLOSE = "close"
    """Close the row as failed or cancelled: its workflow has ended so."""
    IMPORT = "import"
    """Write the final snapshot of a ready build to the rows: none of them names it."""
    REBUILD = "rebuild"
    """Write the row of a build that became ready in the lost time."""
    END_ORPHAN = "end_orphan"
    """End a workflow that has no row, unless it has ended, and its sandboxes. Write a row that says so."""
    OPEN_PREVIEW = "open_preview"
    """Start the workflow of a preview whose time is not over."""
    CLOSE_PREVIEW = "close_preview"
    """Close the row of a preview whose time is over, and end its sandbox."""
    END_SANDBOXES = "end_sandboxes"
    """End the sandboxes of a closed build that no workflow is left to end."""


@dataclass(frozen=True)
class PlannedStep:
    """A step, the build that it is about, and why."""

    step: Step
    build_id: str
    why: str


@dataclass(frozen=True)
class BuildRow:
    """The row of an open build."""

    build_id: str
    status: Status
    is_started: bool


@dataclass(frozen=True)
class PreviewRow:
    """The row of a preview that is opening or open."""

    build_id: str
    expires_at: datetime | None


@dataclass(frozen=True)
class WorkflowRecord:
    """What Temporal lists of a build's latest run."""

    fate: WorkflowFate
    status: str | None = None
    """The build's status, as the run has shown it."""


@dataclass(frozen=True)
class Inventory:
    """All that a plan is made from. Builds are named by their ids."""

    now: datetime
    builds: tuple[BuildRow, ...]
    """The open ones."""
    previews: tuple[PreviewRow, ...]
    workflows: Mapping[str, WorkflowRecord]
    preview_workflows: Mapping[str, WorkflowFate]
    workers: tuple[str, ...] = ()
    """Workers that poll the namespace's task queue."""
    elsewhere: str | None = None
    """The namespace that the database is bound to, if it is not this one."""
    is_store_empty: bool = False
    """The object store has no snapshot, and rows name some."""
    closed: frozenset[str] = frozenset()
    """Builds with a workflow and a closed row."""
    without_product: frozenset[str] = frozenset()
    """Ready builds of which no row names the final snapshot."""
    with_sandbox: frozenset[str] = frozenset()
    """Closed builds that have a sandbox, those of pushes aside."""
    ahead: Mapping[str, int] = field(default_factory=dict)
    """By how many turns the workflows of open builds are ahead of their rows."""


@dataclass(frozen=True)
class RecoveryPlan:
    """What is to be done, and what speaks against doing it without a person's confirmation."""

    steps: tuple[PlannedStep, ...]
    doubts: tuple[str, ...]

    def count(self, step: Step) -> int:
        """How many builds a step is planned for."""
        return sum(planned.step is step for planned in self.steps)


_CUT_OFF = (WorkflowFate.TERMINATED, WorkflowFate.TIMED_OUT)
"""Ends of a workflow that no build has chosen."""


def plan_for_lost_namespace(inventory: Inventory) -> RecoveryPlan:
    """Plan how builds go on in a namespace that has none of them, or only terminated ones. Others are left alone."""
    steps: list[PlannedStep] = []
    for build in inventory.builds:
        record = inventory.workflows.get(build.build_id)
        if not build.is_started:
            continue
        if record is None:
            why = f"it is {build.status}, and this namespace has no workflow of it"
            steps.append(PlannedStep(Step.START, build.build_id, why))
        elif record.fate in _CUT_OFF:
            why = f"it is {build.status}, and its workflow was {record.fate}"
            steps.append(PlannedStep(Step.RESTART, build.build_id, why))
    return RecoveryPlan((*steps, *_last_steps(inventory)), tuple(_doubts(inventory, len(steps))))


_ENDS = {
    WorkflowFate.FAILED: "failed",
    WorkflowFate.CANCELED: "been cancelled",
    WorkflowFate.TERMINATED: "been terminated",
    WorkflowFate.TIMED_OUT: "timed out",
}

_CHANGES = (Step.START, Step.RESTART, Step.CLOSE)
"""Steps of which many at once are a doubt."""


def plan_after_restore(inventory: Inventory) -> RecoveryPlan:
    """Plan how builds go on after the database was put back, while Temporal and the object store were not."""
    steps = []
    for build in inventory.builds:
        record = inventory.workflows.get(build.build_id)
        if record is None and build.is_started:
            steps.append(PlannedStep(Step.START, build.build_id, "Temporal has no workflow of it"))
        elif record is not None and record.fate is WorkflowFate.COMPLETED:
            # First, because a project has one open build, and the next one may have begun in the lost time.
            steps.insert(0, PlannedStep(Step.PROJECT, build.build_id, "its workflow has ended, and it is ready"))
        elif record is not None and record.fate.has_ended:
            steps.insert(0, PlannedStep(Step.CLOSE, build.build_id, f"its workflow has {_ENDS[record.fate]}"))
        elif record is not None and record.fate is WorkflowFate.OPEN:
            turns = inventory.ahead.get(build.build_id, 0)
            if turns:
                why = f"its workflow is {turns} {'turn' if turns == 1 else 'turns'} ahead of its row"
                steps.append(PlannedStep(Step.RESTART, build.build_id, why))
            elif record.status != build.status:
                why = f"its row is {build.status}, and its workflow was {record.status}"
                steps.append(PlannedStep(Step.RESTART, build.build_id, why))
    known = {build.build_id for build in inventory.builds} | inventory.closed
    for build_id, record in inventory.workflows.items():
        if build_id in inventory.without_product and record.fate is WorkflowFate.COMPLETED:
            steps.append(PlannedStep(Step.IMPORT, build_id, "it is ready, and no row names its product"))
        if build_id in known:
            continue
        if record.fate is WorkflowFate.COMPLETED:
            steps.append(PlannedStep(Step.REBUILD, build_id, "it became ready, and its row is lost"))
        elif record.fate is WorkflowFate.OPEN:
            steps.append(PlannedStep(Step.END_ORPHAN, build_id, "it runs, and its row is lost"))
        elif record.fate.has_ended:
            why = f"it has {_ENDS[record.fate]}, and its row is lost"
            steps.append(PlannedStep(Step.END_ORPHAN, build_id, why))
    changed = sum(planned.step in _CHANGES for planned in steps)
    orphans = sum(
        planned.step is Step.END_ORPHAN and not inventory.workflows[planned.build_id].fate.has_ended
        for planned in steps
    )
    return RecoveryPlan((*steps, *_last_steps(inventory)), tuple(_doubts(inventory, changed, orphans)))


def _last_steps(inventory: Inventory) -> list[PlannedStep]:
    previews = _preview_steps(inventory)
    return [*previews, *_sandbox_steps(inventory, previews)]


def _preview_steps(inventory: Inventory) -> list[PlannedStep]:
    steps = []
    for preview in inventory.previews:
        if preview.build_id in inventory.preview_workflows:
            continue  # its workflow, or the reaper, sees to its row
        if preview.expires_at is not None and preview.expires_at > inventory.now:
            steps.append(PlannedStep(Step.OPEN_PREVIEW, preview.build_id, f"open until {preview.expires_at:%H:%M} UTC"))
        else:
            why = "it was not open yet" if preview.expires_at is None else "its time is over"
            steps.append(PlannedStep(Step.CLOSE_PREVIEW, preview.build_id, why))
    return steps


def _sandbox_steps(inventory: Inventory, previews: Sequence[PlannedStep]) -> list[PlannedStep]:
    """A preview that is opened keeps its sandbox. One that is closed had perhaps not yet taken over the sandbox from
    its build, which releases its workspace after that."""
    why = "it is closed, and Temporal has no workflow of it"
    opened = {planned.build_id for planned in previews if planned.step is Step.OPEN_PREVIEW}
    unused = inventory.with_sandbox - {*inventory.workflows, *inventory.preview_workflows, *opened}
    return [PlannedStep(Step.END_SANDBOXES, build_id, why) for build_id in sorted(unused)]


def _doubts(inventory: Inventory, changed: int, orphans: int = 0) -> list[str]:
    """Say what an operator must have looked at before the plan is carried out."""
    doubts = []
    if inventory.elsewhere is not None:
        doubts.append(
            f"The database belongs to {inventory.elsewhere}. If that namespace still runs these builds, each of them "
            "would run twice. Stop its workers first."
        )
    started = [build for build in inventory.builds if build.is_started]
    if started and not any(build.build_id in inventory.workflows for build in started):
        doubts.append("This namespace has no workflow of any open build. That is right only if it was lost.")
    if started and changed > _USUAL_SHARE * len(started):
        doubts.append(f"{changed} of {len(started)} open builds would be changed.")
    if orphans:
        which = "1 workflow" if orphans == 1 else f"{orphans} workflows"
        doubts.append(
            f"{which} without a row would be ended, with the sandboxes. "
            "That is right only if the database was put back. Check DATABASE_URL and TEMPORAL_NAMESPACE."
        )
    if inventory.is_store_empty:
        doubts.append(
            "The object store has no snapshot, and rows name some. Check PROJECT_SNAPSHOT_BUCKET and S3_ENDPOINT_URL."
        )
    if inventory.workers:
        doubts.append(f"Workers are running: {', '.join(inventory.workers)}. Stop them first; start them afterwards.")
    return doubts
