"""What an operator's recovery plans, and what it doubts."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from domain.recovery_plan import (
    BuildRow,
    Inventory,
    PlannedStep,
    PreviewRow,
    RecoveryPlan,
    Step,
    WorkflowRecord,
    plan_after_restore,
    plan_for_lost_namespace,
)
from domain.status import Status
from domain.verdicts import WorkflowFate

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
OPEN = WorkflowRecord(WorkflowFate.OPEN, "code")


def inventory(*build_ids: str, **changes: Any) -> Inventory:
    """Return an inventory of builds that work, without workflows."""
    builds = tuple(BuildRow(build_id, Status.CODE, is_started=True) for build_id in build_ids)
    return replace(Inventory(NOW, builds, (), {}, {}), **changes)


def steps(plan: RecoveryPlan) -> list[tuple[Step, str]]:
    return [(planned.step, planned.build_id) for planned in plan.steps]


def test_every_open_build_is_started_in_an_empty_namespace() -> None:
    plan = plan_for_lost_namespace(inventory("a", "b"))
    assert steps(plan) == [(Step.START, "a"), (Step.START, "b")]
    assert len(plan.doubts) == 2, "no workflow is known, and all builds are changed"


def test_a_repeat_has_nothing_to_do() -> None:
    assert plan_for_lost_namespace(inventory("a", workflows={"a": OPEN})) == RecoveryPlan((), ())


def test_a_workflow_that_has_ended_by_itself_is_left_to_the_reaper() -> None:
    ended = {"a": WorkflowRecord(WorkflowFate.FAILED, "code")}
    assert plan_for_lost_namespace(inventory("a", workflows=ended)).steps == ()


def test_a_build_whose_workflow_was_terminated_goes_on() -> None:
    ended = {"a": WorkflowRecord(WorkflowFate.TERMINATED, "code")}
    assert steps(plan_for_lost_namespace(inventory("a", workflows=ended))) == [(Step.RESTART, "a")]


def test_a_build_that_was_never_started_is_left_to_the_reaper() -> None:
    new = inventory(builds=(BuildRow("a", Status.QUEUED, is_started=False),))
    assert plan_for_lost_namespace(new) == RecoveryPlan((), ())


def test_previews_are_opened_again_or_closed() -> None:
    later, earlier = NOW + timedelta(minutes=5), NOW - timedelta(minutes=5)
    previews = (PreviewRow("a", later), PreviewRow("b", earlier), PreviewRow("c", None), PreviewRow("d", later))
    plan = plan_for_lost_namespace(inventory(previews=previews, preview_workflows={"d": WorkflowFate.OPEN}))
    assert steps(plan) == [(Step.OPEN_PREVIEW, "a"), (Step.CLOSE_PREVIEW, "b"), (Step.CLOSE_PREVIEW, "c")]


def test_doubts() -> None:
    known = inventory("a", workflows={"a": OPEN})
    assert "belongs to other" in plan_for_lost_namespace(replace(known, elsewhere="other at there")).doubts[0]
    assert "Workers are running: w" in plan_for_lost_namespace(replace(known, workers=("w",))).doubts[0]
    assert "no snapshot" in plan_after_restore(replace(known, is_store_empty=True)).doubts[0]


def test_a_workflow_that_agrees_with_its_row_is_left_alone_after_a_restore() -> None:
    assert plan_after_restore(inventory("a", workflows={"a": OPEN})) == RecoveryPlan((), ())


def test_a_workflow_that_is_ahead_is_started_over() -> None:
    plan = plan_after_restore(inventory("a", workflows={"a": OPEN}, ahead={"a": 3}))
    assert plan.steps == (PlannedStep(Step.RESTART, "a", "its workflow is 3 turns ahead of its row"),)
    other = {"a": WorkflowRecord(WorkflowFate.OPEN, "sleeping")}
    assert steps(plan_after_restore(inventory("a", workflows=other))) == [(Step.RESTART, "a")]


def test_what_became_ready_is_closed_first() -> None:
    workflows = {"a": OPEN, "b": WorkflowRecord(WorkflowFate.COMPLETED, "ready")}
    plan = plan_after_restore(inventory("a", "b", workflows=workflows, ahead={"a": 1}))
    assert steps(plan) == [(Step.PROJECT, "b"), (Step.RESTART, "a")]


def test_workflows_without_a_row_are_rebuilt_or_ended() -> None:
    workflows = {
        "ready": WorkflowRecord(WorkflowFate.COMPLETED, "ready"),
        "running": OPEN,
        "failed": WorkflowRecord(WorkflowFate.FAILED, "failed"),
        "closed": WorkflowRecord(WorkflowFate.COMPLETED, "ready"),
    }
    plan = plan_after_restore(inventory(workflows=workflows, closed=frozenset({"closed"})))
    assert steps(plan) == [(Step.REBUILD, "ready"), (Step.END_ORPHAN, "running"), (Step.END_ORPHAN, "failed")]


def test_what_ended_in_the_lost_time_is_closed_first_so_that_the_next_build_of_its_project_fits() -> None:
    workflows = {
        "working": OPEN,
        "cancelled": WorkflowRecord(WorkflowFate.CANCELED, "cancelled"),
        "next": WorkflowRecord(WorkflowFate.COMPLETED, "ready"),
    }
    plan = plan_after_restore(inventory("working", "cancelled", workflows=workflows, ahead={"working": 1}))
    assert steps(plan) == [(Step.CLOSE, "cancelled"), (Step.RESTART, "working"), (Step.REBUILD, "next")]


def test_a_ready_build_gets_its_product_even_if_the_reaper_has_closed_its_row() -> None:
    workflows = {"ready": WorkflowRecord(WorkflowFate.COMPLETED, "ready")}
    closed = frozenset({"ready"})
    plan = plan_after_restore(inventory(workflows=workflows, closed=closed, without_product=closed))
    assert plan == RecoveryPlan((PlannedStep(Step.IMPORT, "ready", "it is ready, and no row names its product"),), ())


def test_ending_many_orphans_needs_a_confirmation() -> None:
    orphans = {f"orphan-{number}": OPEN for number in range(3)}
    [doubt] = plan_after_restore(inventory("a", workflows={"a": OPEN, **orphans})).doubts
    assert doubt.startswith("3 workflows without a row would be ended")


def test_sandboxes_of_closed_builds_end_if_no_workflow_is_left_to_end_them() -> None:
    closed = frozenset("abc")
    workflows = {"workflows": {"b": OPEN}, "preview_workflows": {"c": WorkflowFate.OPEN}}
    stock = inventory(closed=closed, with_sandbox=closed, **workflows)
    for plan in (plan_for_lost_namespace(stock), plan_after_restore(stock)):
        assert steps(plan) == [(Step.END_SANDBOXES, "a")]


def test_the_workspace_of_a_build_whose_preview_is_closed_ends() -> None:
    """A build is ready before it releases its workspace, while its preview opens."""
    later = NOW + timedelta(minutes=5)
    previews = (PreviewRow("opening", None), PreviewRow("open", later))
    stock = inventory(previews=previews, with_sandbox=frozenset({"opening", "open"}))
    ends = [(Step.CLOSE_PREVIEW, "opening"), (Step.OPEN_PREVIEW, "open"), (Step.END_SANDBOXES, "opening")]
    for plan in (plan_for_lost_namespace(stock), plan_after_restore(stock)):
        assert steps(plan) == ends
    assert plan.steps[0].why == "it was not open yet"
