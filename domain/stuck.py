"""Why a build makes no progress, and what an operator can do about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from domain.names import build_workflow_id

SILENT = timedelta(minutes=20)
"""A build that works and has had no event for this long is silent, unless an activity runs."""

SILENT_IN_ACTIVITY = timedelta(minutes=80)
"""So is one with an activity: a call of a slow model, and the wait until a rate limit allows it, may take 75 minutes
(`workflows/policies.py`). Temporal notices within a minute if the activity's worker is gone."""

SUSPICIOUS = timedelta(minutes=2)
"""Ask Temporal about a build that works and has had no event for this long."""

MANY_ATTEMPTS = 5
"""An activity that was attempted more often than this does not succeed by itself."""

UNTAKEN = timedelta(minutes=2)
"""A worker takes an activity within seconds, or after a wait for a free place on a busy queue."""

LATE = timedelta(minutes=15)
"""What should happen by itself is late after this long: a wake-up, a start, a cancellation."""


class StuckKind(StrEnum):
    """Why something makes no progress."""

    SILENT = "silent"
    ATTEMPTS = "attempts"
    TASK_FAILING = "task_failing"
    WAITS_FOR_OPERATOR = "waits_for_operator"
    LOST = "lost"
    NOT_STARTED = "not_started"
    OVERSLEPT = "overslept"
    NOT_CANCELLED = "not_cancelled"
    SANDBOX_WITHOUT_BUILD = "sandbox_without_build"
    REAPER = "reaper"
    NO_WORKER = "no_worker"
    TEMPORAL = "temporal"


@dataclass(frozen=True)
class Why:
    """A reason why a build, or the fleet, makes no progress, and what to do."""

    kind: StuckKind
    detail: str
    remedy: str


@dataclass(frozen=True)
class BuildFacts:
    """What the row of an open build says."""

    build_id: str
    works: bool
    """It has a status in which it makes progress by itself."""
    waits_for_operator: bool
    reason: str | None
    status_at: datetime
    last_event_at: datetime | None
    wakes_at: datetime | None
    created_at: datetime
    is_started: bool
    is_lost: bool
    cancel_requested_at: datetime | None

    def silent_for(self, now: datetime) -> timedelta:
        """How long nothing was heard of it."""
        return now - max(self.last_event_at or self.status_at, self.status_at)


@dataclass(frozen=True)
class PendingActivity:
    """An activity that has not ended."""

    name: str
    attempt: int
    last_failure: str | None
    task_queue: str = ""
    waits_since: datetime | None = None
    """Since when no worker has taken it; None if one runs it, or if it is not due yet."""


@dataclass(frozen=True)
class WorkflowFacts:
    """What Temporal says of a build's workflow."""

    problems: Sequence[str] = ()
    """What Temporal reports of workflow tasks that fail again and again."""
    pending: Sequence[PendingActivity] = ()


def find_reasons(build: BuildFacts, workflow: WorkflowFacts, now: datetime) -> list[Why]:
    """Find out why the build makes no progress; nothing if it does, or may wait."""
    show = f"cofounder ops show {build.build_id}"
    found = []
    if workflow.problems:
        found.append(
            Why(
                StuckKind.TASK_FAILING,
                f"Its workflow task fails again and again ({', '.join(workflow.problems)}).",
                f"Find the error: temporal workflow show --workflow-id {build_workflow_id(build.build_id)}. Deploy "
                "workers that can run it; it goes on by itself then.",
            )
        )
    for activity in workflow.pending:
        if activity.waits_since is not None and now - activity.waits_since > UNTAKEN:
            found.append(
                Why(
                    StuckKind.NO_WORKER,
                    f"No worker has taken {activity.name} from the task queue {activity.task_queue} for "
                    f"{int((now - activity.waits_since).total_seconds() // 60)} minutes.",
                    "Start workers of its role, or more of them (docs/operating.md): cofounder ops checks",
                )
            )
        if activity.attempt > MANY_ATTEMPTS:
            failure = f": {activity.last_failure}" if activity.last_failure else ""
            found.append(
                Why(
                    StuckKind.ATTEMPTS,
                    f"{activity.name} was attempted {activity.attempt} times{failure}",
                    "Remove the cause; it is attempted again by itself. See also: cofounder ops checks",
                )
            )
    if build.is_lost:
        found.append(
            Why(
                StuckKind.LOST,
                "Its workflow is not found in Temporal's namespace.",
                "Compare the namespaces with cofounder ops checks. If it is lost: cofounder recover --temporal",
            )
        )
    if build.waits_for_operator:
        found.append(
            Why(
                StuckKind.WAITS_FOR_OPERATOR,
                build.reason or "It waits for an operator.",
                "Remove the cause, then: cofounder ops wake --where 'status=needs_input and waiting_for=operator' "
                "--reason …, which shows what it would wake, and again with --yes",
            )
        )
    longest = SILENT_IN_ACTIVITY if any(each.waits_since is None for each in workflow.pending) else SILENT
    if build.works and not build.is_lost and build.silent_for(now) > longest:
        minutes = int(build.silent_for(now).total_seconds() // 60)
        found.append(
            Why(
                StuckKind.SILENT,
                f"It works and has had no event for {minutes} minutes.",
                f"See what it does: {show}. If no worker runs: cofounder ops checks",
            )
        )
    if build.wakes_at is not None and now - build.wakes_at > LATE and not build.works:
        found.append(
            Why(
                StuckKind.OVERSLEPT,
                f"It should have woken at {build.wakes_at:%Y-%m-%d %H:%M} UTC.",
                f"Wake it: cofounder wake {build.build_id}. If it stays asleep: {show}",
            )
        )
    if not build.is_started and now - build.created_at > LATE:
        found.append(
            Why(
                StuckKind.NOT_STARTED,
                "Its workflow was not started.",
                "The reaper starts it. See whether that runs: cofounder ops checks",
            )
        )
    if build.cancel_requested_at is not None and now - build.cancel_requested_at > LATE:
        found.append(
            Why(
                StuckKind.NOT_CANCELLED,
                f"It was to be cancelled at {build.cancel_requested_at:%Y-%m-%d %H:%M} UTC and has not ended.",
                f"See what it does: {show}",
            )
        )
    return found


def is_suspicious(build: BuildFacts, now: datetime) -> bool:
    """Whether Temporal has to be asked about the build."""
    return build.works and build.is_started and not build.is_lost and build.silent_for(now) > SUSPICIOUS
