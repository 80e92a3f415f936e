"""Findings, as the agent reads them after the gate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import evidence
from domain.plan import Plan, parse_plan
from domain.product import PRODUCT_FILE

PASSED = "test_a ... ok\n\nRan 3 tests in 0.01s\n\nOK\n"


def test_a_check_that_ran_tests_and_passed_has_no_finding() -> None:
    assert evidence.check_findings("make test", 0, False, PASSED) == []


@pytest.mark.parametrize(
    ("exit_code", "timed_out", "output", "said"),
    [
        (1, False, PASSED, "ended with exit code 1"),
        (None, True, PASSED, "did not end in time"),
        (0, False, "", "It printed nothing"),
        (0, False, "all good, trust me", "does not show that a test was run"),
        (0, False, "Ran 0 tests in 0.00s\n\nOK", "does not show that a test was run"),
    ],
)
def test_a_check_without_evidence_is_a_finding(exit_code: int | None, timed_out: bool, output: str, said: str) -> None:
    (finding,) = evidence.check_findings("make test", exit_code, timed_out, output)
    assert said in finding
    assert "make test" in finding


def test_a_plan_that_is_missing_or_open_is_a_finding() -> None:
    assert "no PLAN.md" in (evidence.plan_finding(None) or "")
    assert "lists no user story" in (evidence.plan_finding(Plan(open=(), done=())) or "")
    assert evidence.plan_finding(Plan(open=(), done=("Log in",))) is None
    finding = evidence.plan_finding(Plan(open=tuple(f"Story {number}" for number in range(20)), done=())) or ""
    assert finding.splitlines()[1] == "- Story 0"
    assert finding.endswith("and 8 more")


def test_uncommitted_changes_are_listed_and_bounded() -> None:
    assert evidence.uncommitted("") is None
    assert evidence.uncommitted("\n") is None
    finding = evidence.uncommitted(" M app.py\n?? new.txt\n") or ""
    assert "\n M app.py\n" in finding
    assert "?? new.txt" in finding
    many = evidence.uncommitted("".join(f"?? file-{number}\n" for number in range(100))) or ""
    assert "and 80 more" in many
    assert "file-99" not in many


@given(st.text(max_size=100).map(lambda text: text * 200))
def test_findings_are_bounded_and_can_be_stored(text: str) -> None:
    for finding in (
        evidence.install_failed(text or "x", 1, False, text),
        *evidence.check_findings(text or "x", 1, False, text),
        evidence.start_ended(text or "x", 1, text),
        evidence.not_answering(8000, 60, text),
        evidence.bad_status(500, text, text),
        evidence.did_not_stay_up(text),
        evidence.git_failed("git status", text),
        evidence.uncommitted(text) or "",
        evidence.plan_finding(parse_plan("\n".join(f"- [ ] {line}" for line in (text or "-").splitlines()))) or "",
    ):
        assert len(finding) < 3_800
        assert "\0" not in finding
        finding.encode()


def test_the_end_of_an_output_is_what_is_quoted() -> None:
    output = "beginning\n" + "x" * 10_000 + "\n\x1b[31mAssertionError: no\x1b[0m\n"
    quoted = evidence.install_failed("pip install", 2, False, output)
    assert quoted.endswith("AssertionError: no")
    assert "beginning" not in quoted


def test_a_status_finding_shows_answer_and_log() -> None:
    finding = evidence.bad_status(500, "<h1>Oops</h1>", "Traceback: boom")
    assert "status 500" in finding
    assert "<h1>Oops</h1>" in finding
    assert finding.endswith("Traceback: boom")


def test_findings_name_the_file_that_is_missing() -> None:
    assert PRODUCT_FILE in evidence.no_product_file()
    assert "port 4321" in evidence.not_answering(4321, 5, "")
    assert "mobile" in evidence.blank(["mobile"])
    assert "commit" in evidence.no_commit()
