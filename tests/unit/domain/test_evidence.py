"""Findings, as the agent reads them after the gate."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import evidence
from domain.check_summary import read_tally
from domain.evidence import StepOutcome
from domain.findings import EVIDENCE_CHARACTERS, SENTENCE_CHARACTERS, Finding, Output
from domain.plan import Plan, parse_plan
from domain.product import PRODUCT_FILE

PASSED = "test_a ... ok\n\nRan 3 tests in 0.01s\n\nOK\n"


def outcome(command: str, exit_code: int | None, output: str, *, timed_out: bool = False) -> StepOutcome:
    return StepOutcome(
        command, exit_code, timed_out, 12.34, Output(output, bytes=len(output.encode("utf-8", "replace")))
    )


def findings_of(ended: StepOutcome) -> list[Finding]:
    return evidence.check_findings(ended, read_tally(ended.output.head))


def text_of(finding: Finding | None) -> str:
    assert finding is not None
    return finding.text()


def test_a_check_that_ran_tests_and_passed_has_no_finding() -> None:
    assert findings_of(outcome("make test", 0, PASSED)) == []


@pytest.mark.parametrize(
    ("exit_code", "timed_out", "output", "said"),
    [
        (1, False, PASSED, "ended with exit code 1 after 12.3 s"),
        (None, True, PASSED, "did not end within 12 s"),
        (0, False, "", "Its output is empty"),
        (0, False, "all good, trust me", "does not show that a test was run"),
        (0, False, "Ran 0 tests in 0.00s\n\nOK", "does not show that a test was run"),
        (0, False, "my-runner: 3 good", "Known are the summaries of unittest, pytest,"),
        (0, False, "Ran 4 tests in 0.01s\n\nFAILED (failures=1)", "\nFAILED (failures=1)\nIts output:"),
    ],
)
def test_a_check_without_evidence_is_a_finding(exit_code: int | None, timed_out: bool, output: str, said: str) -> None:
    (finding,) = findings_of(outcome("make test", exit_code, output, timed_out=timed_out))
    assert said in finding.text()
    assert "make test" in finding.cause


def test_a_finding_names_the_hosts_that_the_command_was_refused() -> None:
    finding = evidence.install_failed(
        replace(outcome("npm ci", 1, "fetch failed"), refused_hosts=("fonts.gstatic.com",))
    )
    assert "fetch failed\n[The sandbox refused to connect to fonts.gstatic.com" in finding.text()
    assert "its set `fonts`" in finding.text()


def test_a_plan_that_is_missing_or_open_is_a_finding() -> None:
    assert "no PLAN.md" in text_of(evidence.plan_finding(None))
    assert "lists no user story" in text_of(evidence.plan_finding(Plan(open=(), done=())))
    assert evidence.plan_finding(Plan(open=(), done=("Log in",))) is None
    many = Plan(open=tuple(f"Story {number}" for number in range(20)), done=())
    lines = text_of(evidence.plan_finding(many)).splitlines()
    assert lines[1] == "- Story 0"
    assert lines[-2] == "and 8 more"


def test_uncommitted_changes_are_listed_and_bounded() -> None:
    assert evidence.uncommitted("") is None
    assert evidence.uncommitted("\n") is None
    finding = text_of(evidence.uncommitted(" M app.py\n?? new.txt\n"))
    assert "\n M app.py\n" in finding
    assert "?? new.txt" in finding
    many = text_of(evidence.uncommitted("".join(f"?? file-{number}\n" for number in range(100))))
    assert "and 80 more" in many
    assert "file-99" not in many


@given(st.text(max_size=100).map(lambda text: text * 200))
def test_findings_are_bounded_and_can_be_stored(text: str) -> None:
    output = Output(text)
    for finding in (
        evidence.install_failed(outcome(text or "x", 1, text)),
        *findings_of(outcome(text or "x", 1, text)),
        *findings_of(outcome(text or "x", 0, text)),
        *findings_of(outcome(text or "x", 0, text + "\n1 failed in 1s")),
        evidence.embedded_repositories(["web", text or "x"]),
        evidence.start_ended(text or "x", 1, output),
        evidence.not_answering(8000, 60, output),
        evidence.bad_status(500, text, output),
        evidence.did_not_stay_up(3, output),
        evidence.git_failed("git status", text),
        evidence.uncommitted(text),
        evidence.plan_finding(parse_plan("\n".join(f"- [ ] {line}" for line in (text or "-").splitlines()))),
    ):
        if finding is None:
            continue
        rendered = finding.text()
        assert len(rendered) < EVIDENCE_CHARACTERS + 2 * SENTENCE_CHARACTERS + 300
        assert "\0" not in rendered
        assert finding.remedy in rendered
        rendered.encode()


def test_beginning_and_end_of_an_output_are_quoted() -> None:
    output = (
        "npm error `npm ci` can only install with a lock file in step\n"
        + "usage\n" * 3_000
        + "\x1b[31mthe end\x1b[0m\n"
    )
    finding = evidence.install_failed(outcome("npm ci", 2, output))
    assert "npm error `npm ci` can only" in finding.evidence
    assert finding.evidence.endswith("usage\nthe end")


def test_what_names_an_error_in_the_middle_of_an_output_is_quoted() -> None:
    output = "begin\n" + "fine\n" * 3_000 + "E: no such package foo\n" * 2 + "fine\n" * 3_000 + "end\n"
    finding = evidence.install_failed(outcome("apt-get install foo", 100, output))
    assert finding.evidence.count("E: no such package foo") == 1
    assert "lines of it that name an error" in finding.evidence


def test_an_embedded_repository_is_named_with_the_commands_that_repair_it() -> None:
    finding = text_of(evidence.embedded_repositories(["my web", "api"]))
    assert "\nmy web\napi\n" in finding
    assert "rm -rf 'my web'/.git; git rm -q --cached 'my web'" in finding


def test_a_status_finding_shows_answer_and_log() -> None:
    finding = text_of(evidence.bad_status(500, "<h1>Oops</h1>", Output("Traceback: boom")))
    assert "status 500" in finding
    assert "<h1>Oops</h1>" in finding
    assert "\nTraceback: boom\n" in finding


def test_findings_name_the_file_that_is_missing() -> None:
    assert PRODUCT_FILE in evidence.NO_PRODUCT_FILE
    assert "port 4321" in evidence.not_answering(4321, 5, Output("")).cause
    assert "mobile" in evidence.blank(["mobile"]).cause
    assert "commit" in evidence.no_commit().cause
