"""Why a build makes no progress, by its row and its workflow."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from domain.stuck import (
    LATE,
    SILENT,
    SILENT_IN_ACTIVITY,
    SUSPICIOUS,
    UNTAKEN,
    BuildFacts,
    PendingActivity,
    StuckKind,
    WorkflowFacts,
    find_reasons,
    is_suspicious,
)

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
FINE = BuildFacts(
    build_id="1b4e28ba-2fa1-41d2-883f-0016d3cca427",
    works=True,
    waits_for_operator=False,
    reason=None,
    status_at=NOW - timedelta(hours=3),
    last_event_at=NOW - timedelta(minutes=1),
    wakes_at=None,
    created_at=NOW - timedelta(hours=4),
    is_started=True,
    is_lost=False,
    cancel_requested_at=None,
)
SECOND = timedelta(seconds=1)


def test_a_build_that_works_is_not_stuck() -> None:
    assert find_reasons(FINE, WorkflowFacts(pending=[PendingActivity("think", 2, None)]), NOW) == []
    assert not is_suspicious(FINE, NOW)


@pytest.mark.parametrize(
    ("build", "kind"),
    [
        (replace(FINE, last_event_at=NOW - SILENT - SECOND), StuckKind.SILENT),
        (replace(FINE, works=False, waits_for_operator=True, reason="No key."), StuckKind.WAITS_FOR_OPERATOR),
        (replace(FINE, is_lost=True), StuckKind.LOST),
        (replace(FINE, works=False, wakes_at=NOW - LATE - SECOND), StuckKind.OVERSLEPT),
        (replace(FINE, works=False, is_started=False), StuckKind.NOT_STARTED),
        (replace(FINE, cancel_requested_at=NOW - LATE - SECOND), StuckKind.NOT_CANCELLED),
    ],
)
def test_rows_say_why(build: BuildFacts, kind: StuckKind) -> None:
    [why] = find_reasons(build, WorkflowFacts(), NOW)
    assert why.kind is kind
    assert why.detail.endswith(".")
    assert why.remedy


def test_a_silent_build_that_has_just_got_its_status_is_not_stuck() -> None:
    assert find_reasons(replace(FINE, last_event_at=None, status_at=NOW - SECOND), WorkflowFacts(), NOW) == []


def test_a_long_model_call_is_not_silence() -> None:
    runs = WorkflowFacts(pending=[PendingActivity("make_model_call", 1, None)])
    due = PendingActivity("make_model_call", 1, None, "cofounder", NOW - SECOND)
    long, too_long = (replace(FINE, last_event_at=NOW - each - SECOND) for each in (SILENT, SILENT_IN_ACTIVITY))
    assert find_reasons(long, runs, NOW) == []
    assert [each.kind for each in find_reasons(long, WorkflowFacts(pending=[due]), NOW)] == [StuckKind.SILENT]
    assert [each.kind for each in find_reasons(too_long, runs, NOW)] == [StuckKind.SILENT]


def test_temporal_says_why() -> None:
    facts = WorkflowFacts(["category=WorkflowTaskFailed"], [PendingActivity("think", 6, "no answer")])
    task, attempts = find_reasons(FINE, facts, NOW)
    assert (task.kind, attempts.kind) == (StuckKind.TASK_FAILING, StuckKind.ATTEMPTS)
    assert attempts.detail == "think was attempted 6 times: no answer"


def test_work_that_no_worker_takes_is_named_with_its_queue() -> None:
    due = NOW - UNTAKEN
    takes_time = PendingActivity("think", 1, None, "cofounder", None)
    waits = PendingActivity("dispatch_tool", 1, None, "cofounder-browser", due)
    assert find_reasons(FINE, WorkflowFacts(pending=[takes_time, waits]), NOW) == []
    [why] = find_reasons(FINE, WorkflowFacts(pending=[replace(waits, waits_since=due - SECOND)]), NOW)
    assert why.kind is StuckKind.NO_WORKER
    assert why.detail == "No worker has taken dispatch_tool from the task queue cofounder-browser for 2 minutes."


def test_only_quiet_builds_are_asked_about() -> None:
    quiet = replace(FINE, last_event_at=NOW - SUSPICIOUS - SECOND)
    assert is_suspicious(quiet, NOW)
    assert not is_suspicious(replace(quiet, works=False), NOW)
