"""The paths on which a build waits because many others work, too."""

import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.testing import TimeSkipper

from domain.budget import morning_delay, next_utc_midnight
from domain.status import Status
from tests.harness.scripts import PRODUCT, bash, steps
from tests.harness.worker import FOUR_TURNS_A_DAY, WorkerHarness, poor_founder
from tests.workflows.scenarios import Drive, EndedWorkflow, Scenario, ready_build, until_row

ADMISSION_SCENARIOS: list[Scenario] = []


def _scenario(
    path: str, **settings: Any
) -> Callable[[Callable[[WorkerHarness], Awaitable[list[EndedWorkflow]]]], None]:
    def add(drive: Drive) -> None:
        ADMISSION_SCENARIOS.append(Scenario(drive.__name__, path, drive, settings))

    return add


async def _skip(harness: WorkerHarness, build_id: uuid.UUID, time: timedelta) -> None:
    await TimeSkipper(harness.client).fast_forward(harness.handle(build_id), time)


@_scenario("it wakes at its own time of the morning, not at midnight", morning_seconds=7200)
async def own_morning(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id, _ = await poor_founder(harness, FOUR_TURNS_A_DAY)
    script = steps([bash("echo 1")], [bash("echo 2")], [bash("echo 3")], [bash(PRODUCT)])
    build_id = await harness.start(user_id, script=script)
    row = await until_row(harness, build_id, lambda row: row.status == Status.SLEEPING)
    now = datetime.now(UTC)
    delay = morning_delay(build_id, 7200)
    assert row.wakes_at == next_utc_midnight(now) + delay
    await harness.until_idle(build_id)
    await _skip(harness, build_id, row.wakes_at - now - delay / 2)
    await harness.until_idle(build_id)
    asleep = await harness.row(build_id)
    assert (asleep.status, asleep.status_seq) == (Status.SLEEPING, row.status_seq), "midnight must not wake it"
    await _skip(harness, build_id, delay / 2 + timedelta(seconds=1))
    return await ready_build(harness, build_id)
