"""Guards, the choice of a model, and the meaning of failures."""

from datetime import UTC, datetime, timedelta

import pytest

from domain import recovery
from domain.errors import UnknownModel
from domain.failures import judge_failure
from domain.guards import call_signature, count_errors, error_signature, is_repeating, remember, stuck_on
from domain.lifetime import is_near_its_end
from domain.model_choice import choose_model
from domain.question import Attempt, about_circle, about_error
from domain.recovery import RecordedCall
from domain.status import WaitingFor
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


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1 failed in 0.31s\n[exit code 1]", "1 failed in 12.02s\n[exit code 1]"),
        ("KeyError: 0x7f3a at line 12", "KeyError: 0x99bc at line 140"),
        ("no such file: /tmp/a1b2c3/x.py", "no such file: /var/lib/y.py"),
        ("commit 4f9d2ac1 is bad", "commit 0011223344aa is bad"),
        ("  It   FAILED\n", "it failed"),
    ],
)
def test_an_error_is_the_same_whatever_varies_in_it(one: str, other: str) -> None:
    assert error_signature("bash", "bash: a", one) == error_signature("bash", "bash: b", other)


def test_other_errors_are_others() -> None:
    errors = [
        ("bash", "", "NameError: x is not defined\n[exit code 1]"),
        ("bash", "", "NameError: y is not defined\n[exit code 1]"),
        ("bash", "", "NameError: x is not defined\n[exit code 2]"),
        ("grep", "", "NameError: x is not defined\n[exit code 1]"),
        ("bash", "bash: grep -q a b", "(no output)\n[exit code 1]"),
        ("bash", "bash: grep -q c d", "(no output)\n[exit code 1]"),
        ("edit_file", "edit_file: a.py", "old_text does not occur."),
        ("edit_file", "edit_file: b.py", "old_text does not occur."),
    ]
    signatures = {error_signature(*error) for error in errors}
    assert len(signatures) == len(errors)
    assert all(len(signature) == 8 for signature in signatures)
    assert error_signature("bash", "", "x" * 100_000 + "\ud800")


def test_the_third_equal_error_is_for_the_founder() -> None:
    counted = count_errors(count_errors({}, ["a", "b", "a"]), ["b"])
    assert stuck_on(counted) is None
    assert stuck_on(count_errors(counted, ["b", "c"])) == "b"
    assert len(count_errors(counted, map(str, range(1000)))) == 50


def test_a_question_says_what_happened_and_what_was_tried() -> None:
    attempts = [Attempt(turn, "I try\nagain.", "bash: make", "x" * 1000 + f"\nError {turn}") for turn in range(7)]
    asked = about_error(attempts)
    assert asked.problem.startswith(asked.reason)
    assert asked.problem.endswith("Error 6")
    assert len(asked.problem) < 1000
    assert asked.tried == [f"Turn {turn}: I try again. — bash: make" for turn in range(2, 7)]
    assert 2 <= len(asked.options) <= 4
    assert about_circle(attempts).tried == asked.tried


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
    assert [edit.id for edit in recovery.reapplicable(edits)] == ["a", "c"]
    applied, left, commands = recovery.describe_reapplied(calls, recovery.Reapplied(2))
    assert applied.endswith(": a; c.")
    assert left.endswith(": d; e. (It may be in the snapshot already.)")
    assert commands.endswith(": make.")
    assert recovery.describe_reapplied([], recovery.Reapplied()) == []
