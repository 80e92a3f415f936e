"""What a worker's start does to the schedules of its deployment, and what it leaves to operators."""

from dataclasses import replace
from datetime import timedelta

import pytest
from temporalio.api.workflowservice.v1 import DescribeScheduleRequest, DescribeScheduleResponse
from temporalio.client import (
    Client,
    ScheduleCalendarSpec,
    ScheduleHandle,
    ScheduleRange,
    ScheduleSpec,
    ScheduleUpdate,
)

from clients.schedules import schedule_prober
from clients.temporal import connect_temporal
from domain.names import PROBER_ID
from local.stack import LocalStack
from tests.harness.namespaces import new_namespace
from tests.harness.wait import wait_until

QUEUE = "no-worker"
EVERY = timedelta(seconds=15)
CHANGED = timedelta(seconds=20)


@pytest.fixture
async def client(stack: LocalStack) -> Client:
    """A client of a namespace of its own: other tests' workers change the schedules of theirs."""
    return await connect_temporal({**stack.environment, "TEMPORAL_NAMESPACE": await new_namespace(stack)})


async def _is_paused_with(handle: ScheduleHandle, every: timedelta) -> bool:
    schedule = (await handle.describe()).schedule
    return schedule.state.paused and [each.every for each in schedule.spec.intervals] == [every]


async def test_a_schedule_that_an_operator_has_paused_stays_paused(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await schedule_prober(client, QUEUE, EVERY)
    handle = client.get_schedule_handle(PROBER_ID)
    await handle.pause(note="a drill")
    await schedule_prober(client, QUEUE, EVERY)  # at once, as a worker that starts just then
    await wait_until(lambda: _is_paused_with(handle, EVERY))
    await schedule_prober(client, QUEUE, CHANGED)
    assert await _is_paused_with(handle, CHANGED)
    await handle.unpause()

    describe, described = client.workflow_service.describe_schedule, []

    async def describe_before_a_pause(request: DescribeScheduleRequest, **options: object) -> DescribeScheduleResponse:
        answer = await describe(request, **options)  # type: ignore[arg-type]
        described.append(answer)
        if len(described) == 1:
            await handle.pause(note="a drill")
        return answer

    monkeypatch.setattr(client.workflow_service, "describe_schedule", describe_before_a_pause)
    await schedule_prober(client, QUEUE, EVERY)
    monkeypatch.undo()
    assert described
    await wait_until(lambda: _is_paused_with(handle, EVERY))
    assert (await handle.describe()).schedule.state.note == "a drill"


async def test_a_schedule_to_which_an_operator_gave_a_calendar_runs_as_workers_want(client: Client) -> None:
    await schedule_prober(client, QUEUE, EVERY)
    handle = client.get_schedule_handle(PROBER_ID)

    async def is_of(intervals: int) -> bool:
        return len((await handle.describe()).schedule.spec.intervals) == intervals

    calendar = ScheduleSpec(calendars=[ScheduleCalendarSpec(hour=[ScheduleRange(3)])])
    await handle.update(lambda given: ScheduleUpdate(replace(given.description.schedule, spec=calendar)))
    await wait_until(lambda: is_of(0))
    await schedule_prober(client, QUEUE, EVERY)
    await wait_until(lambda: is_of(1))
    assert not (await handle.describe()).schedule.spec.calendars
