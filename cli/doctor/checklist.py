"""The checks of `cofounder doctor`: those of servers, which the operators' pages make too, and those of this
machine."""

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.text import Text

from checks.check import CheckContext, CheckResult
from checks.run import SERVER_CHECKS, NamedCheck
from checks.run import run_checks as run
from cli.doctor.api import check_api
from cli.doctor.machine import check_bubblewrap, check_chromium, check_disk
from cli.doctor.tools import check_tools
from cli.feed_state import printable
from domain.errors import CofounderError
from settings import Settings, load_settings

DEADLINE_SECONDS = 15.0
"""Fail a check after this many seconds."""

MACHINE_CHECKS: Sequence[NamedCheck] = (
    ("api", check_api),
    ("tools", check_tools),
    ("chromium", check_chromium),
    ("bubblewrap", check_bubblewrap),
    ("disk", check_disk),
)
"""The checks of the machine on which the command runs, and whether it reaches the API."""

CHECKS: Sequence[NamedCheck] = (*SERVER_CHECKS, *MACHINE_CHECKS)

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


async def run_checks(
    names: Sequence[str], api_url: str | None, report: Callable[[CheckResult], object]
) -> list[CheckResult]:
    """Run these checks. Calls `report` with each result in the order of `CHECKS`, as early as possible."""
    context = CheckContext(_load_settings_or_error(), api_url)
    return await run(context, [each for each in CHECKS if each[0] in names], report, DEADLINE_SECONDS)


def print_check_result(console: Console, result: CheckResult) -> None:
    """Print the result as a line: state, name, detail and what to do."""
    line = Text.assemble((f"{result.state:<5}", _STYLES[result.state]), f"{result.name:<11} ")
    line.append(printable(result.detail))
    if result.remedy:
        line.append(f" → {printable(result.remedy)}", "bold")
    console.print(line)


def _load_settings_or_error() -> Settings | CofounderError:
    try:
        return load_settings()
    except CofounderError as error:
        return error
