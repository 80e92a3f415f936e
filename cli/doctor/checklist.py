"""The checks of `cofounder doctor`. They run concurrently, each with its own deadline, and print one line each."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from rich.console import Console
from rich.text import Text

from cli.doctor.check import Check, CheckResult, CheckSkipped, DoctorContext, fail, warn
from cli.doctor.connections import check_connections
from cli.doctor.database import check_database, check_outages
from cli.doctor.machine import check_bubblewrap, check_chromium, check_disk
from cli.doctor.permits import check_permits
from cli.doctor.services import check_api, check_model, check_object_store, check_previews, check_sandboxes
from cli.doctor.temporal import check_reaper, check_search_attributes, check_temporal, check_worker
from cli.doctor.tools import check_tools
from cli.feed_state import printable
from domain.errors import CofounderError
from settings import Settings, load_settings

DEADLINE_SECONDS = 15.0
"""Fail a check after this many seconds."""

CHECKS: tuple[tuple[str, Check], ...] = (
    ("settings", DoctorContext.check_settings),
    ("database", check_database),
    ("connections", check_connections),
    ("temporal", check_temporal),
    ("attributes", check_search_attributes),
    ("reaper", check_reaper),
    ("worker", check_worker),
    ("store", check_object_store),
    ("outages", check_outages),
    ("model", check_model),
    ("sandboxes", check_sandboxes),
    ("tools", check_tools),
    ("permits", check_permits),
    ("api", check_api),
    ("previews", check_previews),
    ("chromium", check_chromium),
    ("bubblewrap", check_bubblewrap),
    ("disk", check_disk),
)

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


async def run_checks(
    names: Sequence[str], api_url: str | None, report: Callable[[CheckResult], object]
) -> list[CheckResult]:
    """Run these checks. Calls `report` with each result in the order of `CHECKS`, as early as possible."""
    context = DoctorContext(_load_settings_or_error(), api_url)
    tasks = [asyncio.create_task(_run_check(name, check, context)) for name, check in CHECKS if name in names]
    results = []
    for task in tasks:
        results.append(await task)
        report(results[-1])
    return results


def print_check_result(console: Console, result: CheckResult) -> None:
    """Print the result as a line: state, name, detail and what to do."""
    line = Text.assemble((f"{result.state:<5}", _STYLES[result.state]), f"{result.name:<11} ")
    line.append(printable(result.detail))
    if result.remedy:
        line.append(f" → {printable(result.remedy)}", "bold")
    console.print(line)


async def _run_check(name: str, check: Check, context: DoctorContext) -> CheckResult:
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            result = await check(context)
    except TimeoutError:
        result = fail(
            f"no answer within {DEADLINE_SECONDS:.0f} seconds", "Check whether the server hangs, and the network."
        )
    except CheckSkipped as reason:
        result = warn(str(reason))
    except CofounderError as error:
        result = fail(str(error))
    except Exception as error:  # a check that crashes must not end the others
        result = fail(f"the check failed ({type(error).__name__}: {error})")
    return replace(result, name=name)


def _load_settings_or_error() -> Settings | CofounderError:
    try:
        return load_settings()
    except CofounderError as error:
        return error
