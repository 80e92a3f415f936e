"""What builds do at a moment, for figures that say in how many phases something has struck them."""

import uuid
from collections import Counter
from collections.abc import Iterable

from tests.harness.worker import WorkerHarness


async def count_phases(harness: WorkerHarness, builds: Iterable[uuid.UUID]) -> str:
    """Say how many builds have each status, and which activity they wait for, if there is one."""
    phases: Counter[str] = Counter()
    for build_id in builds:
        row = await harness.row(build_id)
        described = (await harness.handle(build_id).describe()).raw_description
        activities = sorted(each.activity_type.name for each in described.pending_activities)
        phases[" in ".join([row.status, *activities])] += 1
    return ", ".join(f"{count} {phase}" for phase, count in sorted(phases.items()))
