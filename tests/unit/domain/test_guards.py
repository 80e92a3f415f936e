"""The guards that stop or steer an agent, and the signatures that they compare."""

import pytest

from domain.guards import call_signature, count_errors, error_signature, is_repeating, remember, stuck_on


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
