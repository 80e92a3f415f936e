"""The paths on which a build waits because many others work, too."""

import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select
from temporalio.testing import TimeSkipper

from db.models import Turn
from domain.budget import morning_delay, next_utc_midnight
from domain.status import Status
from tests.harness.scripts import PRODUCT, SMALL, bash, steps
from tests.harness.worker import FOUR_TURNS_A_DAY, WorkerHarness, poor_founder
from tests.workflows.scenarios import Drive, EndedWorkflow, Scenario, ready_build, until_row

ADMISSION_SCENARIOS: list[Scenario] = []


_LIMITED_MODEL = "claude-haiku-5-5"
"""The model of one scenario alone: what its API refuses, all builds with it wait for."""


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


@_scenario(
    "the model's API takes no calls for a while: no attempt is used up, and the build asks again by itself",
    model_rate_patience_seconds=1,
)
async def rate_limited(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id = await harness.founder(model_overrides={"coder": _LIMITED_MODEL})
    build_id = await harness.start(user_id, script=SMALL, faults=[{"kind": "rate_limited", "retry_after": 8}])
    workflows = await ready_build(harness, build_id)
    [failed] = await harness.events(build_id, "turn_failed")
    assert "can be asked again in 8 s" in failed.data["error"]
    started = [event for event in await harness.events(build_id, "turn_started") if event.turn == 1]
    assert [event.data["attempt"] for event in started] == [1, 1]
    assert (started[1].created_at - started[0].created_at).total_seconds() >= 8
    assert "needs_input" not in await harness.statuses(build_id)
    return workflows


@_scenario(
    "its run is long while the model's API takes no calls: the next run asks for the same turn",
    model_rate_patience_seconds=1,
    continue_as_new_turns=1,
)
async def rate_limited_and_long(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id = await harness.founder(model_overrides={"coder": _LIMITED_MODEL})
    build_id = await harness.start(user_id, script=SMALL, faults=[{"kind": "rate_limited", "retry_after": 8}])
    workflows = await ready_build(harness, build_id)
    answered = [event.turn for event in await harness.events(build_id, "turn_answered")]
    assert answered == list(range(1, len(answered) + 1)), "each turn was answered once"
    async with harness.session() as tx:
        runs = await tx.session.scalars(select(Turn.run_id).where(Turn.build_id == build_id).order_by(Turn.number))
    described = (await harness.handle(build_id).describe()).raw_description
    first = described.workflow_execution_info.first_run_id
    assert first
    assert first not in runs.all(), "the first run has got no answer"
    return workflows
