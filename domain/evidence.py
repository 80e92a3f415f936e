"""Findings of the evidence gate as sentences that the agent can act on. Each is bounded and can be stored as text."""

from collections.abc import Sequence

from domain.plan import PLAN_FILE, STORIES_SHOWN, Plan
from domain.product import PRODUCT_FILE, count_tests
from domain.tool_output import clean

TAIL_CHARACTERS = 2_500
"""How much of the end of an output or log a finding quotes; the cause is usually at the end."""

FILES_SHOWN = 20


def tail_of(output: str) -> str:
    """Return the end of an output as plain text that can be stored."""
    plain = clean(output).rstrip().lstrip("\n")
    return plain if len(plain) <= TAIL_CHARACTERS else "…" + plain[-TAIL_CHARACTERS:]


def no_commit() -> str:
    """The repository has no commit, so there is nothing to check."""
    return "There is no git commit in the workspace: what is not committed does not count. Commit your work."


def git_failed(command: str, output: str) -> str:
    """A git command failed, so the repository is unusable."""
    return f"`{command}` failed in the restored workspace, so its last commit could not be checked.{_quoted(output)}"


def uncommitted(porcelain: str) -> str | None:
    """Return a finding about uncommitted changes in the output of `git status --porcelain`, or None."""
    lines = [line for line in porcelain.splitlines() if line.strip()]
    if not lines:
        return None
    listing = "\n".join(lines[:FILES_SHOWN])
    more = f"\nand {len(lines) - FILES_SHOWN} more" if len(lines) > FILES_SHOWN else ""
    return (
        f"The workspace has changes that are in no commit (git status):\n{tail_of(listing)}{more}\n"
        "The gate checks only the last commit. Commit what belongs to the product, let git ignore what does not."
    )


def plan_finding(plan: Plan | None) -> str | None:
    """Return a finding about the commit's plan, which is None if there is no file; None if all of it is done."""
    if plan is None:
        return f"The last commit has no {PLAN_FILE}, the checklist of user stories that shows what is done."
    if plan.is_empty:
        return f"{PLAN_FILE} lists no user story. A story is a line that begins with `- [ ]`, or with `- [x]` if done."
    if not plan.open:
        return None
    listed = "\n".join(f"- {clean(story)}" for story in plan.open[:STORIES_SHOWN])
    more = f"\nand {len(plan.open) - STORIES_SHOWN} more" if len(plan.open) > STORIES_SHOWN else ""
    return f"{PLAN_FILE} has stories that are not done:\n{listed}{more}"


def no_product_file() -> str:
    """The commit has no cofounder.json."""
    return f"The last commit has no {PRODUCT_FILE} at the top of the workspace."


def bad_product_file(problem: str) -> str:
    """The commit's cofounder.json can't be used; `problem` is a sentence."""
    return tail_of(problem)


def install_failed(command: str, exit_code: int | None, timed_out: bool, output: str) -> str:
    """`install` did not succeed in a fresh sandbox."""
    return _failed("install", command, exit_code, timed_out, output)


def check_findings(command: str, exit_code: int | None, timed_out: bool, output: str) -> list[str]:
    """Return the findings about a run of `check`: it failed, or it ran no test."""
    if timed_out or exit_code != 0:
        return [_failed("check", command, exit_code, timed_out, output)]
    if count_tests(output) == 0:
        return [
            f"`check` ({_short(command)}) exited with 0, but its output does not show that a test was run. Let the "
            f"test runner print its summary.{_quoted(output)}"
        ]
    return []


def start_ended(command: str, exit_code: int, log: str) -> str:
    """The server ended instead of staying up."""
    return f"`start` ({_short(command)}) ended with exit code {exit_code} before the page was served.{_quoted(log)}"


def not_answering(port: int, seconds: float, log: str) -> str:
    """Nothing answered on the port in time."""
    return (
        f"Nothing answered GET / on port {port} within {seconds:.0f} s after `start`. The server must listen on the "
        f"port that {PRODUCT_FILE} names.{_quoted(log)}"
    )


def bad_status(status: int, body: str, log: str) -> str:
    """The server answered the page with a status other than 200."""
    answer = f" The answer begins: {tail_of(body[:500])}" if body.strip() else ""
    return f"GET / was answered with status {status}, not 200.{answer}{_quoted(log)}"


def blank(viewports: Sequence[str]) -> str:
    """The page is blank at these viewports."""
    return f"The page at / is blank: its screenshot ({', '.join(viewports)}) shows one colour and nothing else."


def did_not_stay_up(log: str) -> str:
    """The server answered at first and stopped later."""
    return f"The server answered at first, but no longer after a browser had loaded its page.{_quoted(log)}"


def _failed(step: str, command: str, exit_code: int | None, timed_out: bool, output: str) -> str:
    how = "did not end in time" if timed_out else f"ended with exit code {exit_code}"
    return f"`{step}` ({_short(command)}) {how}.{_quoted(output)}"


def _quoted(output: str) -> str:
    text = tail_of(output)
    return f" Its output ends:\n{text}" if text else " It printed nothing."


def _short(command: str) -> str:
    line = tail_of(" ".join(command.split()))
    return line if len(line) <= 200 else line[:199] + "…"
