"""Shows that each safeguard is needed: without it, its fault does damage, and the harness finds the damage.

    python -m tests.faults.safeguards

Prints the damage found without each safeguard; exit code 1 if one was missing without damage.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from tests.faults.cases import files_reverted, killed_in_bash, killed_with_its_sandbox, stale_snapshot
from tests.faults.report import Report, side_by_side
from tests.harness.faults import fault_harness

FAULTS: dict[str, Callable[[Report, str], Coroutine[Any, Any, None]]] = {
    "claim": stale_snapshot,
    "intent": killed_with_its_sandbox,
    "journal": killed_in_bash,
    "verification": files_reverted,
}
"""The fault against which each safeguard of `disabled_safeguards.py` protects."""


async def without_each(report: Report) -> None:
    """Strike each fault without its safeguard; the report has the damage under the safeguard's name."""
    fault_harness = report.fault_harness
    harness = fault_harness.harness()
    worker = await fault_harness.worker(harness)
    await side_by_side(report.reference(harness), *(fault(report, safeguard) for safeguard, fault in FAULTS.items()))
    await worker.end()


def damage_without(report: Report, safeguard: str) -> str | None:
    """The damage found without the safeguard. None if there was none, or if the fault test itself broke."""
    damage = report.cases.get(safeguard)
    return None if damage is None or damage.startswith("Traceback") else damage


async def _show() -> bool:
    async with fault_harness() as faults:
        report = Report(faults)
        await without_each(report)
    for safeguard in FAULTS:
        damage = damage_without(report, safeguard)
        print(f"without the {safeguard}: {damage or f'NO DAMAGE, but {report.cases.get(safeguard)}'}")
    return all(damage_without(report, safeguard) for safeguard in FAULTS)


if __name__ == "__main__":
    all_found = asyncio.run(_show())
    sys.stdout.flush()
    os._exit(int(not all_found))
