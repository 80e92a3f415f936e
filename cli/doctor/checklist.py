"""`cofounder doctor`: every check side by side, each with a deadline of its own, one line for each."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from rich.console import Console
from rich.text import Text

from cli.doctor.check import Check, CheckResult, CheckSkipped, DoctorContext, fail, warn
from cli.doctor.database import check_database
from cli.doctor.machine import check_bubblewrap, check_chromium, check_disk
from cli.doctor.services import check_api, check_model, check_object_store, check_sandboxes
from cli.doctor.temporal import check_reaper, check_search_attributes, check_temporal, check_worker
from cli.feed_state import printable
from domain.errors import CofounderError
from settings import Settings, load_settings

DEADLINE_SECONDS = 15.0
"""How long a check may take before it counts as failed."""

CHECKS: tuple[tuple[str, Check], ...] = (
    ("settings", DoctorContext.check_settings),
    ("database", check_database),
    ("temporal", check_temporal),
    ("attributes", check_search_attributes),
    ("reaper", check_reaper),
    ("worker", check_worker),
    ("store", check_object_store),
    ("model", check_model),
    ("sandboxes", check_sandboxes),
    ("api", check_api),
    ("chromium", check_chromium),
    ("bubblewrap", check_bubblewrap),
    ("disk", check_disk),
)

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


async def run_checks(
    names: Sequence[str], api_url: str | None, tell: Callable[[CheckResult], object]
) -> list[CheckResult]:
    """Make these checks; `tell` is told each result, in the order of `CHECKS`, as soon as it is its turn."""
    context = DoctorContext(_settings(), api_url)
    tasks = [asyncio.create_task(_make(name, check, context)) for name, check in CHECKS if name in names]
    results = []
    for task in tasks:
        results.append(await task)
        tell(results[-1])
    return results


def print_check_result(console: Console, result: CheckResult) -> None:
    """A line: how it came out, what was found, what to do."""
    line = Text.assemble((f"{result.state:<5}", _STYLES[result.state]), f"{result.name:<11} ")
    line.append(printable(result.detail))
    if result.remedy:
        line.append(f" → {printable(result.remedy)}", "bold")
    console.print(line)


async def _make(name: str, check: Check, context: DoctorContext) -> CheckResult:
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            found = await check(context)
    except TimeoutError:
        found = fail(f"no answer within {DEADLINE_SECONDS:.0f} seconds", "Look whether it hangs, and at the network.")
    except CheckSkipped as reason:
        found = warn(str(reason))
    except CofounderError as error:
        found = fail(str(error))
    except Exception as error:  # a doctor does not fall ill with its patients
        found = fail(f"could not be checked ({type(error).__name__}: {error})")
    return replace(found, name=name)


def _settings() -> Settings | CofounderError:
    try:
        return load_settings()
    except CofounderError as error:
        return error
