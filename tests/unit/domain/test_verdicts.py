"""No verdict of the reaper destroys what some truth that fits the evidence still needs."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from domain.verdicts import (
    SLICE_SECONDS,
    SLICES,
    BuildEvidence,
    BuildVerdict,
    ObjectEvidence,
    SandboxEvidence,
    WorkflowFate,
    closes_too_many,
    due_slices,
    judge_build,
    may_close_preview,
    may_delete_object,
    may_doom_object,
    may_end_sandbox,
    needs_fates,
)

ENDED = [fate for fate in WorkflowFate if fate.has_ended]


@given(st.booleans(), st.booleans(), st.booleans(), st.sampled_from(WorkflowFate))
def test_a_build_is_closed_only_if_its_workflow_is_listed_as_ended(
    is_open: bool, is_marked: bool, is_bound: bool, fate: WorkflowFate
) -> None:
    verdict = judge_build(BuildEvidence(is_open, is_marked, is_bound, fate))
    if verdict in (BuildVerdict.CLOSE, BuildVerdict.PROJECT):
        assert is_open
        assert is_bound
        assert fate in ENDED
        assert (verdict is BuildVerdict.PROJECT) == (fate is WorkflowFate.COMPLETED)
    if not is_bound:
        assert verdict is BuildVerdict.LEAVE


def test_what_is_not_found_is_marked_once_and_unmarked_when_it_is_found() -> None:
    lost = BuildEvidence(is_open=True, is_marked=False, is_bound=True, fate=WorkflowFate.UNKNOWN)
    assert judge_build(lost) is BuildVerdict.MARK
    marked = replace(lost, is_marked=True)
    assert judge_build(marked) is BuildVerdict.LEAVE
    assert judge_build(replace(marked, fate=WorkflowFate.OPEN)) is BuildVerdict.UNMARK
    assert judge_build(replace(lost, fate=WorkflowFate.OPEN)) is BuildVerdict.LEAVE


@pytest.mark.parametrize(
    ("closing", "open_builds", "too_many"),
    [(0, 0, False), (5, 5, False), (6, 6, True), (6, 300, False), (7, 300, True), (200, 10_000, False)],
)
def test_more_than_five_and_two_in_a_hundred_are_too_many(closing: int, open_builds: int, *, too_many: bool) -> None:
    assert closes_too_many(closing, open_builds) == too_many


def test_each_slice_is_due_once_an_hour_and_what_was_missed_too() -> None:
    now = datetime(2026, 11, 29, 12, tzinfo=UTC)
    assert sorted(due_slices(None, now)) == sorted(SLICES)
    assert due_slices(now, now + timedelta(seconds=SLICE_SECONDS - 1)) == ""
    assert len(due_slices(now, now + timedelta(seconds=3 * SLICE_SECONDS))) == 3
    assert sorted(due_slices(now, now + timedelta(days=1))) == sorted(SLICES)
    hour = [due_slices(now + timedelta(minutes=each - 1), now + timedelta(minutes=each)) for each in range(1, 61)]
    assert sorted("".join(hour)) == sorted(SLICES)


sandboxes = st.builds(
    SandboxEvidence,
    is_ours=st.booleans(),
    is_build_open=st.booleans(),
    is_previewed=st.booleans(),
    is_replaced=st.booleans(),
    is_bound=st.booleans(),
    build=st.sampled_from(WorkflowFate),
    preview=st.sampled_from(WorkflowFate),
    is_of_push=st.booleans(),
    is_overdue=st.booleans(),
    is_lost=st.booleans(),
)


@given(sandboxes)
def test_a_sandbox_ends_only_if_nothing_can_need_it(evidence: SandboxEvidence) -> None:
    if not may_end_sandbox(evidence):
        return
    assert evidence.is_ours
    assert evidence.is_bound
    if evidence.is_of_push:
        assert evidence.is_overdue
    elif evidence.is_build_open:
        assert evidence.is_replaced
    else:
        assert not evidence.is_previewed
        assert WorkflowFate.OPEN not in (evidence.build, evidence.preview)
        assert evidence.is_lost or {evidence.build, evidence.preview} != {WorkflowFate.UNKNOWN}


def test_a_sandbox_ends_whose_workflow_an_operator_knows_to_be_lost() -> None:
    closed = SandboxEvidence(is_ours=True, is_build_open=False, is_previewed=False, is_replaced=False, is_bound=True)
    assert not may_end_sandbox(closed)
    lost = replace(closed, is_lost=True)
    assert may_end_sandbox(lost)
    assert not may_end_sandbox(replace(lost, is_previewed=True))
    assert not may_end_sandbox(replace(lost, preview=WorkflowFate.OPEN))
    assert not may_end_sandbox(replace(lost, is_build_open=True))


@pytest.mark.parametrize("fate", WorkflowFate)
def test_a_preview_is_closed_if_its_workflow_has_ended_or_is_known_to_be_lost(fate: WorkflowFate) -> None:
    assert may_close_preview(fate, is_lost=False) == fate.has_ended
    assert may_close_preview(fate, is_lost=True) == (fate is not WorkflowFate.OPEN)


@given(sandboxes)
def test_the_fates_are_asked_for_if_the_verdict_depends_on_them(evidence: SandboxEvidence) -> None:
    if not needs_fates(evidence):
        unknown = replace(evidence, build=WorkflowFate.UNKNOWN, preview=WorkflowFate.UNKNOWN)
        assert may_end_sandbox(evidence) == may_end_sandbox(unknown)


@dataclass
class Snapshot:
    """The truth about a snapshot's object, and what the present rows say. `row`: None, or the row's state."""

    row: str | None = "stored"
    row_before: str | None = None
    exists: bool = True
    doomed_on: int | None = None
    doomed_before: int | None = None
    written_on: int = 0


class StoreMachine(RuleBasedStateMachine):
    """A database that is backed up and put back, a store that is swept, and days that pass.

    What a row names is there, and what a backup of the last seven days names, too.
    """

    GRACE = 7

    def __init__(self) -> None:
        super().__init__()
        self.day = 0
        self.backed_up_on: int | None = None
        self.is_put_back = False
        self.snapshots: list[Snapshot] = []

    @rule()
    def take(self) -> None:
        self.snapshots.append(Snapshot(written_on=self.day))

    @rule(data=st.data())
    def rotate(self, data: st.DataObject) -> None:
        stored = [each for each in self.snapshots if each.row == "stored"]
        if stored:
            old = data.draw(st.sampled_from(stored))
            old.row, old.doomed_on = "deleted", self.day

    @rule()
    def back_up(self) -> None:
        self.backed_up_on = self.day
        for each in self.snapshots:
            each.row_before, each.doomed_before = each.row, each.doomed_on

    @precondition(lambda self: self.backed_up_on is not None and self.day - self.backed_up_on < self.GRACE)
    @rule()
    def put_back(self) -> None:
        self.is_put_back = True
        for each in self.snapshots:
            # Of a snapshot that is newer than the backup, neither row nor tombstone is left.
            is_newer = each.written_on > (self.backed_up_on or 0) or each.row_before is None
            each.row = None if is_newer else each.row_before
            each.doomed_on = None if is_newer else each.doomed_before

    @precondition(lambda self: self.is_put_back)
    @rule()
    def recover(self) -> None:
        """An operator imports what the store has and the rows do not name."""
        self.is_put_back = False
        for each in self.snapshots:
            if each.row is None and each.exists:
                each.row, each.doomed_on = "stored", None

    @rule(days=st.integers(1, 5))
    def wait(self, days: int) -> None:
        self.day += days

    @rule()
    def sweep(self) -> None:
        for each in self.snapshots:
            evidence = ObjectEvidence(
                is_ours=True,
                has_row=each.row is not None,
                is_named=each.row == "stored",
                is_old=self.day - each.written_on > 1,
                is_trusted=not self.is_put_back,
            )
            if each.exists and each.doomed_on is None and may_doom_object(evidence):
                each.doomed_on = self.day
            is_due = each.doomed_on is not None and self.day - each.doomed_on >= self.GRACE
            if may_delete_object(evidence, is_due=is_due):
                each.exists = False

    @invariant()
    def what_a_row_names_is_there(self) -> None:
        assert all(each.exists for each in self.snapshots if each.row == "stored")

    @invariant()
    def what_a_recent_backup_names_is_there(self) -> None:
        if self.backed_up_on is not None and self.day - self.backed_up_on < self.GRACE:
            assert all(each.exists for each in self.snapshots if each.row_before == "stored")


TestStore = StoreMachine.TestCase


def test_an_object_of_another_deployment_is_never_doomed() -> None:
    theirs = ObjectEvidence(is_ours=False, has_row=False, is_named=False, is_old=True, is_trusted=True)
    assert not may_doom_object(theirs)
    assert may_doom_object(replace(theirs, is_ours=True))
