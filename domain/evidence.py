"""The findings of the evidence gate, one function each. See `domain/findings.py` for what a finding has to say."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from domain.check_summary import Tally, known_runners
from domain.egress import refusal_note
from domain.findings import Finding, FindingKind, Output, bounded
from domain.plan import PLAN_FILE, STORIES_SHOWN, Plan
from domain.product import PRODUCT_FILE
from domain.tool_output import clean

FILES_SHOWN = 20

COMMAND_CHARACTERS = 200
"""How much of a command a finding quotes, in one line."""

NO_PRODUCT_FILE = f"The last commit has no {PRODUCT_FILE} at the top of the workspace."

_EXAMPLE = '{"install": "npm ci", "check": "npm test", "start": "npm start", "port": 3000}'


@dataclass(frozen=True)
class StepOutcome:
    """How a command of the product ended in the gate's sandbox."""

    command: str
    exit_code: int | None
    """None if it was ended for taking too long."""
    timed_out: bool
    seconds: float
    output: Output
    refused_hosts: Sequence[str] = ()
    """Hosts that the sandbox was not let out to meanwhile."""


def no_commit() -> Finding:
    """The repository has no commit, so there is nothing to check."""
    return Finding(
        FindingKind.NO_COMMIT,
        "There is no git commit in the workspace, and what is not committed does not count.",
        "",
        "Commit your work with `git add -A && git commit`.",
    )


def git_failed(command: str, output: str) -> Finding:
    """A git command failed, so the repository is unusable."""
    return Finding(
        FindingKind.GIT_FAILED,
        f"`{command}` failed in the restored workspace, so its last commit could not be checked.",
        Output(output).quoted("What git printed"),
        "Repair the repository so that `git fsck` and `git status` succeed in the workspace, and commit.",
    )


def uncommitted(porcelain: str) -> Finding | None:
    """Return a finding about uncommitted changes in the output of `git status --porcelain`, or None."""
    lines = [line for line in porcelain.splitlines() if line.strip()]
    if not lines:
        return None
    listing = "\n".join(lines[:FILES_SHOWN])
    more = f"\nand {len(lines) - FILES_SHOWN} more" if len(lines) > FILES_SHOWN else ""
    return Finding(
        FindingKind.UNCOMMITTED,
        "The workspace has changes that are in no commit. The gate checks only the last commit.",
        f"git status:\n{clean(listing)}{more}",
        "Commit what belongs to the product, name the rest in .gitignore, and see that `git status --porcelain` prints "
        "nothing.",
    )


def embedded_repositories(paths: Sequence[str]) -> Finding:
    """The commit names folders that are git repositories of their own, so that no file of them is in it."""
    listed = "\n".join(clean(path) for path in paths[:FILES_SHOWN])
    more = f"\nand {len(paths) - FILES_SHOWN} more" if len(paths) > FILES_SHOWN else ""
    first = shlex.quote(paths[0])
    return Finding(
        FindingKind.EMBEDDED_REPOSITORY,
        "The workspace has git repositories inside its own: no file of them is in the last commit, and the folders are "
        "empty in a fresh clone.",
        f"Embedded repositories:\n{listed}{more}",
        f"Make each a plain folder of the workspace and commit it: `rm -rf {first}/.git; git rm -q --cached {first}; "
        f"git add {first}; git commit -m 'Add {first}'`.",
    )


def plan_finding(plan: Plan | None) -> Finding | None:
    """Return a finding about the commit's plan, which is None if there is no file; None if all of it is done."""
    if plan is None:
        return Finding(
            FindingKind.PLAN,
            f"The last commit has no {PLAN_FILE}, the checklist of user stories that shows what is done.",
            "",
            f"Commit a {PLAN_FILE} with one line per user story, `- [x]` before each that a test or a look has proved.",
        )
    if plan.is_empty:
        return Finding(
            FindingKind.PLAN,
            f"{PLAN_FILE} lists no user story.",
            "",
            "Write each story as a line that begins with `- [ ]`, or with `- [x]` once it is done, and commit.",
        )
    if not plan.open:
        return None
    listed = "\n".join(f"- {clean(story)}" for story in plan.open[:STORIES_SHOWN])
    more = f"\nand {len(plan.open) - STORIES_SHOWN} more" if len(plan.open) > STORIES_SHOWN else ""
    return Finding(
        FindingKind.PLAN,
        f"{PLAN_FILE} has stories that are not done:",
        f"{listed}{more}",
        "Build what they describe, tick each with `- [x]` when a test or a look has proved it, and commit.",
    )


def bad_product_file(problem: str) -> Finding:
    """The commit's cofounder.json is missing or can't be used; `problem` is a sentence."""
    return Finding(
        FindingKind.PRODUCT_FILE,
        problem,
        "",
        f"Commit a {PRODUCT_FILE} of the form {_EXAMPLE} at the top of the workspace, with your product's commands.",
    )


def install_failed(outcome: StepOutcome) -> Finding:
    """`install` did not succeed in a fresh sandbox."""
    return _failed(
        FindingKind.INSTALL_FAILED,
        "install",
        outcome,
        "Let `install` exit with 0 in a fresh clone of the last commit, where nothing is installed yet. Try it so: "
        "clone the workspace to a new folder with `git clone` and run it there.",
    )


def check_findings(outcome: StepOutcome, tally: Tally) -> list[Finding]:
    """Return the findings about a run of `check`: it failed, a test failed, or it ran no test."""
    if outcome.timed_out or outcome.exit_code != 0:
        return [
            _failed(
                FindingKind.CHECK_FAILED,
                "check",
                outcome,
                "Fix what the output names, so that `check` exits with 0 after `install` in a fresh clone of the last "
                "commit.",
            )
        ]
    if tally.failed:
        return [_tests_failed(outcome, tally)]
    return [] if tally.passed else [_no_test_ran(outcome)]


def _tests_failed(outcome: StepOutcome, tally: Tally) -> Finding:
    lines = "\n".join(tally.failures)
    return Finding(
        FindingKind.TESTS_FAILED,
        f"`check` ({_short(outcome.command)}) exited with 0, but it names failed tests.",
        f"{lines}\n{outcome.output.quoted()}",
        "Fix the tests that failed, and let `check` end with the exit code of the test runner: without `|| true`, and "
        "without a command after it that hides the code.",
    )


def _no_test_ran(outcome: StepOutcome) -> Finding:
    return Finding(
        FindingKind.NO_TEST_RAN,
        f"`check` ({_short(outcome.command)}) exited with 0, but its output does not show that a test was run.",
        outcome.output.quoted(),
        "Write at least one test, let `check` run it, and let it print the whole summary of its test runner. Known are "
        f"the summaries of {known_runners()}. From any other runner a report counts that `check` prints as TAP, or "
        "writes as JUnit XML to a file *.xml in the workspace.",
    )


def start_ended(command: str, exit_code: int, log: Output) -> Finding:
    """The server ended instead of staying up."""
    return Finding(
        FindingKind.START_ENDED,
        f"`start` ({_short(command)}) ended with exit code {exit_code} before the page was served.",
        log.quoted("Its log"),
        "Fix what the log names. `start` has to run in the foreground and keep serving after `install` in a fresh "
        "clone of the last commit.",
    )


def not_answering(port: int, seconds: float, log: Output) -> Finding:
    """Nothing answered on the port in time."""
    return Finding(
        FindingKind.NOT_ANSWERING,
        f"Nothing answered GET / on port {port} within {seconds:.0f} s after `start`.",
        log.quoted("The log of `start`"),
        f"Let `start` listen on 0.0.0.0 at the port that {PRODUCT_FILE} names, which is {port}, and answer within "
        f"{seconds:.0f} s. Slow work, such as a build, belongs in `install`.",
    )


def bad_status(status: int, body: str, log: Output) -> Finding:
    """The server answered the page with a status other than 200."""
    answer = f"The answer begins:\n{clean(body[:500])}\n" if body.strip() else ""
    return Finding(
        FindingKind.BAD_STATUS,
        f"GET / was answered with status {status}, not 200.",
        answer + log.quoted("The log of `start`"),
        "Let GET / answer 200 with the product's page, without a redirect.",
    )


def page_failed(problem: str) -> Finding:
    """The browser could not show the page; `problem` is a sentence."""
    return Finding(
        FindingKind.PAGE_FAILED,
        f"The page at / could not be shown in a browser. {problem}",
        "",
        "Let the page load in Chromium within 30 s, then look at it with take_screenshot.",
    )


def blank(viewports: Sequence[str]) -> Finding:
    """The page is blank at these viewports."""
    return Finding(
        FindingKind.BLANK,
        f"The page at / is blank: its screenshot ({', '.join(viewports)}) shows one colour and nothing else.",
        "",
        "Let the page at / show content at each of these sizes, and see it with take_screenshot.",
    )


def did_not_stay_up(exit_code: int | None, log: Output) -> Finding:
    """The server answered at first and stopped later. `exit_code` is None if its process still runs."""
    how = "it still runs" if exit_code is None else f"`start` ended with exit code {exit_code}"
    return Finding(
        FindingKind.DID_NOT_STAY_UP,
        f"The server answered at first, but no longer when a browser had asked for its page; {how}.",
        log.quoted("The log of `start`"),
        "Fix what ends or blocks the server when a browser loads the page with its scripts, styles and pictures.",
    )


def with_refused(finding: Finding, hosts: Sequence[str]) -> Finding:
    """Add the hosts that the sandbox was not let out to, if there are any, to what shows the finding."""
    return replace(finding, evidence=f"{finding.evidence}\n{refusal_note(hosts)}".strip()) if hosts else finding


def _failed(kind: FindingKind, step: str, outcome: StepOutcome, remedy: str) -> Finding:
    how = (
        f"did not end within {outcome.seconds:.0f} s"
        if outcome.timed_out
        else f"ended with exit code {outcome.exit_code} after {outcome.seconds:.1f} s"
    )
    finding = Finding(kind, f"`{step}` ({_short(outcome.command)}) {how}.", outcome.output.quoted(), remedy)
    return with_refused(finding, outcome.refused_hosts)


def _short(command: str) -> str:
    line = clean(" ".join(command.split()))
    return line if len(line) <= COMMAND_CHARACTERS else line[: COMMAND_CHARACTERS - 1] + "…"


def announcement(text: str) -> str:
    """A step of the gate as a line of the feed."""
    return bounded(text, 2_500)
