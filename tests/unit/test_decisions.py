"""Guards, the order of statuses, the choice of a model, and what failures mean."""

import pytest

from domain.errors import UnknownModel
from domain.failures import judge_failure
from domain.guards import call_signature, is_repeating, remember
from domain.model_choice import choose_model
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
