"""Each safeguard is needed: without it, the fault that it is against does damage, and the harness finds it.

    python -m tests.faults.safeguards

Prints what was found for each; exit code 1 when for one of them nothing was found.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from tests.faults.cases import killed_in_bash, killed_with_its_sandbox, reverted, stale_snapshot
from tests.faults.report import Report, side_by_side
from tests.harness.faults import fault_harness

FAULTS: dict[str, Callable[[Report, str], Coroutine[Any, Any, None]]] = {
    "claim": stale_snapshot,
    "intent": killed_with_its_sandbox,
    "journal": killed_in_bash,
    "verification": reverted,
}
"""The fault that each safeguard of `without.py` is against."""


async def without_each(report: Report) -> None:
    """Switch each off in turn; what was found is in the report under its name."""
    fault_harness = report.fault_harness
    harness = fault_harness.harness()
    worker = await fault_harness.worker(harness)
    await side_by_side(report.reference(harness), *(fault(report, safeguard) for safeguard, fault in FAULTS.items()))
    await worker.end()


def found(report: Report, safeguard: str) -> str | None:
    """The damage that was found without the safeguard; a fault test that broke has found none."""
    damage = report.cases.get(safeguard)
    return None if damage is None or damage.startswith("Traceback") else damage


async def _show() -> bool:
    async with fault_harness() as here:
        report = Report(here)
        await without_each(report)
    for safeguard in FAULTS:
        print(f"without the {safeguard}: {found(report, safeguard) or f'NO DAMAGE, but {report.cases.get(safeguard)}'}")
    return all(found(report, safeguard) for safeguard in FAULTS)


if __name__ == "__main__":
    shown = asyncio.run(_show())
    sys.stdout.flush()
    os._exit(int(not shown))
