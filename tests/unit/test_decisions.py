"""Guards, the order of statuses, the choice of a model, and what failures mean."""

from datetime import UTC, datetime, timedelta

import pytest

from domain import recovery
from domain.errors import UnknownModel
from domain.failures import judge_failure
from domain.guards import call_signature, is_repeating, remember
from domain.lifetime import is_near_its_end
from domain.model_choice import choose_model
from domain.recovery import RecordedCall
from domain.status import CLOSED, WORKING, Status, WaitingFor, may_follow
from settings import default_prices


def test_the_third_equal_call_in_ten_is_a_circle() -> None:
    assert not is_repeating(["a"], ["a"])
    assert is_repeating(["a", "b", "a"], ["a"])
    assert is_repeating([], ["a", "a", "a"])
    assert not is_repeating(["a", "a", *"bcdefghi"], ["a"]), "the window has moved on"
    assert not is_repeating(["a", "a", "a"], ["b"]), "only new calls fire"


def test_the_window_is_bounded() -> None:
    assert remember(list("abcdefghij"), ["k"]) == list("bcdefghijk")


def test_signatures_do_not_depend_on_key_order() -> None:
    assert call_signature("bash", {"a": 1, "b": 2}) == call_signature("bash", {"b": 2, "a": 1})
    assert call_signature("bash", {"a": 1}) != call_signature("glob", {"a": 1})
    assert call_signature("bash", {"a": "\ud800"})


def test_status_order() -> None:
    assert may_follow(Status.QUEUED, Status.STARTING)
    assert may_follow(Status.CHECKS, Status.READY)
    assert may_follow(Status.CHECKS, Status.CODE)
    assert not may_follow(Status.CODE, Status.READY), "only the gate makes a build ready"
    for status in WORKING:
        assert may_follow(status, Status.SLEEPING)
        assert may_follow(Status.SLEEPING, status)
        assert may_follow(status, Status.CANCELLED)
    for closed in CLOSED:
        assert not any(may_follow(closed, status) for status in Status)


def test_model_choice_goes_from_override_to_plan_to_fallback() -> None:
    prices, plan = default_prices(), {"coder": "claude-sonnet-5-5"}
    opus, haiku = "claude-opus-5-5", "claude-haiku-5-5"
    assert choose_model("coder", {"coder": opus}, plan, haiku, prices) == opus
    assert choose_model("coder", {"designer": opus}, plan, haiku, prices) == "claude-sonnet-5-5"
    assert choose_model("coder", {}, {}, haiku, prices) == haiku
    with pytest.raises(UnknownModel, match="the user's override for the role coder is gpt"):
        choose_model("coder", {"coder": "gpt"}, plan, haiku, prices)


def test_failures() -> None:
    assert judge_failure("BuildFailed", "no brief", []).waiting_for is None
    assert judge_failure("AccountSuspended", "suspended", []).waiting_for is None
    assert judge_failure("NeedsPerson", "no key", ["operator"]).waiting_for is WaitingFor.OPERATOR
    assert judge_failure("NeedsPerson", "no bucket", ["store"]).waiting_for is WaitingFor.STORE
    assert judge_failure("SnapshotFailed", "differs", []).waiting_for is WaitingFor.STORE
    assert judge_failure("SandboxUnavailable", "away", []).waiting_for is WaitingFor.OPERATOR
    assert judge_failure(None, "who knows", []).waiting_for is WaitingFor.OPERATOR


def test_a_sandbox_near_its_providers_cap_is_replaced() -> None:
    opened, hour = datetime(2026, 1, 1, tzinfo=UTC), 3600

    def near(minutes: float, cap: int | None = hour, longest: int = 600) -> bool:
        return is_near_its_end(opened, opened + timedelta(minutes=minutes), cap, longest)

    assert not near(44.9)
    assert near(45), "the longest call and a snapshot still fit"
    assert not near(10_000, cap=None)
    assert not near(29, longest=7200), "half of the time at least is used"
    assert near(30, longest=7200)
    assert not is_near_its_end(None, opened, hour, 600)


def test_what_is_told_of_edits_that_were_applied_again() -> None:
    def call(name: str, summary: str, *, succeeded: bool = True, unsure: bool = False) -> RecordedCall:
        return RecordedCall(summary, name, summary, {}, succeeded, unsure)

    calls = [
        call("write_file", "a", unsure=True),
        call("bash", "make", succeeded=False),
        call("edit_file", "b", succeeded=False),
        call("edit_file", "c"),
        call("edit_file", "d", unsure=True),
        call("write_file", "e"),
    ]
    edits = recovery.edits_to_reapply(calls)
    assert [edit.id for edit in edits] == ["a", "c", "d", "e"]
    assert [edit.id for edit in recovery.fitting(edits)] == ["a", "c"]
    applied, left, commands = recovery.told(calls, recovery.Reapplied(2))
    assert applied.endswith(": a; c.")
    assert left.endswith(": d; e. (It may be in the snapshot already.)")
    assert commands.endswith(": make.")
    assert recovery.told([], recovery.Reapplied()) == []
