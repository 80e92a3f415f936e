"""History grows by a constant amount per turn, and a long build continues as new."""

from collections.abc import Sequence

import pytest
from temporalio.api.history.v1 import HistoryEvent

from clients.browser import Browser
from local.stack import LocalStack
from tests.harness.history import chain_of, largest_payload, shares_of
from tests.harness.worker import worker_harness

TURNS = 64
RUN_TURNS = 40


@pytest.mark.parametrize(("calls", "turns", "runs"), [(1, TURNS, 2), (3, 16, 1)])
async def test_a_turn_takes_a_constant_share_of_history(
    stack: LocalStack, browser: Browser, calls: int, turns: int, runs: int
) -> None:
    async with worker_harness(stack, browser, tool_call_cap=10_000, continue_as_new_turns=RUN_TURNS) as harness:
        script = {"kind": "long", "turns": turns, "calls_per_turn": calls, "end": "end_turn"}
        build_id = await harness.start(script=script)
        await harness.until_event(build_id, "plan")
        await harness.builds.cancel(build_id)
        await harness.finished(build_id)
        chain = await chain_of(harness.client, str(build_id))

    assert len(chain) == runs, "the long build continues as new once, the short one never"
    shares = [share for events in chain for share in shares_of(_without_lost_tasks(events))]
    assert len(shares) >= turns - runs + 1, "all but the last turn of each run, and the turns of reminders"
    shares = shares[: turns - runs + 1]
    for share in shares:
        assert share.events <= 14 + 6 * (calls - 1)
        assert share.bytes <= 2200 + 1200 * (calls - 1)
    half = len(shares) // 2
    first, second = sum(s.bytes for s in shares[:half]) / half, sum(s.bytes for s in shares[half : 2 * half]) / half
    assert second == pytest.approx(first, rel=0.05)
    assert sum(s.events for s in shares[half : 2 * half]) == pytest.approx(
        sum(s.events for s in shares[:half]), rel=0.05
    )
    assert max(largest_payload(event) for events in chain for event in events) < 4096


def _without_lost_tasks(events: Sequence[HistoryEvent]) -> list[HistoryEvent]:
    """Return the history without workflow tasks that a busy machine did not run in time: Temporal has repeated them."""
    lost: set[int] = set()
    for event in events:
        timed_out = event.workflow_task_timed_out_event_attributes
        if event.HasField("workflow_task_timed_out_event_attributes"):
            lost |= {event.event_id, timed_out.scheduled_event_id, timed_out.started_event_id}
        failed = event.workflow_task_failed_event_attributes
        if event.HasField("workflow_task_failed_event_attributes"):
            lost |= {event.event_id, failed.scheduled_event_id, failed.started_event_id}
    return [event for event in events if event.event_id not in lost]
