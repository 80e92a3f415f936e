"""The paths of builds and previews that wait for a permit to have a sandbox running; see `scenarios.py`.

Each has a database of its own: permits are counted over all builds.
"""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.testing import TimeSkipper

from db.models import Permit
from domain.names import EXTEND, preview_workflow_id
from domain.permits import CHECK_EVERY, PREVIEW_CLOSED, PREVIEW_NOT_OPENED
from domain.status import Status
from tests.harness.scripts import PRODUCT, SMALL, bash, hold, steps
from tests.harness.wait import wait_until
from tests.harness.worker import WorkerHarness
from tests.workflows.scenarios import (
    Drive,
    EndedWorkflow,
    Scenario,
    end_preview,
    ready_build,
    release_command,
    until_preview,
    until_row,
)

PERMIT_SCENARIOS: list[Scenario] = []

_HELD = steps([hold()], [bash(PRODUCT)])


def _scenario(path: str, **more: Any) -> Callable[[Drive], None]:
    def add(drive: Drive) -> None:
        settings = {"sandbox_quota": 1} | more
        PERMIT_SCENARIOS.append(Scenario(drive.__name__, path, drive, settings, own_database=True))

    return add


async def _until_it_waits(harness: WorkerHarness, build_id: uuid.UUID) -> str:
    row = await until_row(harness, build_id, lambda row: row.status == Status.WAITING)
    assert row.dependency == "capacity"
    return row.reason or ""


async def _holds_permit(harness: WorkerHarness, build_id: uuid.UUID) -> bool:
    async with harness.session() as tx:
        row = await tx.session.get(Permit, build_id)
        return row is not None and row.held_since is not None


async def _next_check(harness: WorkerHarness, workflow_id: str) -> None:
    """Let the time pass after which a workflow that waits checks its place in the queue."""
    handle = harness.client.get_workflow_handle(workflow_id)
    await TimeSkipper(harness.client).fast_forward(handle, CHECK_EVERY + timedelta(seconds=1))


@_scenario("no sandbox is free: the build waits its turn, and the preview of the one before it closes for it")
async def waited_for_permit(harness: WorkerHarness) -> list[EndedWorkflow]:
    first = await harness.start(script=_HELD)
    await harness.until_event(first, "tool_started")
    second = await harness.start(script=SMALL)
    assert "and is next" in await _until_it_waits(harness, second)
    third = await harness.start(script=SMALL)
    assert "1 build is ahead" in await _until_it_waits(harness, third)
    await _next_check(harness, f"build-{second}")
    await harness.builds.cancel(third)
    assert (await harness.finished(third)).status == Status.CANCELLED
    await release_command(harness, first)
    assert (await harness.finished(first)).status == Status.READY
    closed = await end_preview(harness, first, "closed")
    await until_preview(harness, first, "closed", PREVIEW_CLOSED)
    workflows = await ready_build(harness, second)
    assert await harness.statuses(second) == ["starting", "waiting", "starting", "scaffold", "code", "checks", "ready"]
    assert not await _holds_permit(harness, second)
    return [*workflows, closed, EndedWorkflow(f"build-{third}", "cancelled")]


@_scenario("no sandbox is free for so long that the build continues as new while it waits", continue_as_new_turns=2)
async def long_wait_for_permit(harness: WorkerHarness) -> list[EndedWorkflow]:
    first = await harness.start(script=_HELD)
    await harness.until_event(first, "tool_started")
    second = await harness.start(script=SMALL)
    await _until_it_waits(harness, second)
    run = (await harness.handle(second).describe()).run_id

    async def is_another_run() -> bool:
        return (await harness.handle(second).describe()).run_id != run

    for _ in range(2):
        await _next_check(harness, f"build-{second}")
    await wait_until(is_another_run)
    await release_command(harness, first)
    assert (await harness.finished(first)).status == Status.READY
    await end_preview(harness, first, "closed")
    return await ready_build(harness, second)


@_scenario("the product does not pass the gate, which runs with the workspace's permit; the workspace is resumed")
async def gate_shared_permit(harness: WorkerHarness) -> list[EndedWorkflow]:
    hollow = PRODUCT.replace("python3 -m unittest", "true")
    build_id = await harness.start(script=steps([bash(hollow)], [{"text": "Done."}], [bash(PRODUCT)]))
    workflows = await ready_build(harness, build_id)
    kinds = [event.type for event in await harness.events(build_id)]
    assert [kind for kind in kinds if kind in ("gate_bounced", "resumed", "gate_passed")] == [
        "gate_bounced",
        "resumed",
        "gate_passed",
    ]
    assert Status.WAITING not in await harness.statuses(build_id), "it keeps its permit"
    return workflows


@_scenario("a build that sleeps gives its permit back; when it is woken, another one has it, and it waits")
async def woken_without_permit(harness: WorkerHarness) -> list[EndedWorkflow]:
    stopped = {"kind": "authentication", "after": 1, "times": 1}
    first = await harness.start(script=steps([bash("echo one")], [bash(PRODUCT)]), faults=[stopped])
    await harness.until(first, frozenset({Status.NEEDS_INPUT}))
    second = await harness.start(script=_HELD)
    await harness.until_event(second, "tool_started")
    assert not await _holds_permit(harness, first)
    await harness.builds.wake(first)
    await _until_it_waits(harness, first)
    await release_command(harness, second)
    assert (await harness.finished(second)).status == Status.READY
    workflows = await ready_build(harness, first)
    events = await harness.handle(first).fetch_history()
    names = [each.activity_task_scheduled_event_attributes.activity_type.name for each in events.events]
    assert names.count("claim_permit") == 1, "it is told: the preview gives way at once, not at a later look"
    return [*workflows, await end_preview(harness, second, "closed")]


@_scenario("a preview waits for a build; it opens, is extended as it closes for another one, and opens once more")
async def preview_waited(harness: WorkerHarness) -> list[EndedWorkflow]:
    shown = await harness.start(script=SMALL)
    await ready_build(harness, shown)
    first = await harness.start(script=_HELD)
    await harness.until_event(first, "tool_started")
    await harness.builds.open_preview(shown, 3600, seq=100)
    await until_preview(harness, shown, "opening", "waits for a free sandbox")
    await _next_check(harness, preview_workflow_id(shown))
    await release_command(harness, first)
    await harness.finished(first)
    await end_preview(harness, first, "cancelled")
    await until_preview(harness, shown, "open")
    preview = harness.client.get_workflow_handle(preview_workflow_id(shown))
    second = await harness.start(script=_HELD)
    await _until_it_waits(harness, second)
    await preview.signal(EXTEND, 7200)
    await release_command(harness, second)
    await harness.finished(second)
    await end_preview(harness, second, "cancelled")
    await until_preview(harness, shown, "open")
    return [await end_preview(harness, shown, "cancelled")]


@_scenario("a preview waits for a build for all of the time that it was to be open")
async def preview_not_opened(harness: WorkerHarness) -> list[EndedWorkflow]:
    shown = await harness.start(script=SMALL)
    await ready_build(harness, shown)
    build_id = await harness.start(script=_HELD)
    await harness.until_event(build_id, "tool_started")
    await harness.builds.open_preview(shown, 200, seq=100)
    await until_preview(harness, shown, "opening", "waits for a free sandbox")
    await _next_check(harness, preview_workflow_id(shown))
    ended = await end_preview(harness, shown, "closed")
    await until_preview(harness, shown, "closed", PREVIEW_NOT_OPENED)
    await release_command(harness, build_id)
    await ready_build(harness, build_id)
    return [ended]


@_scenario("cancelled while the gate runs: the workspace is saved already, and stays paused")
async def cancelled_at_gate(harness: WorkerHarness) -> list[EndedWorkflow]:
    waits = PRODUCT.replace("python3 -m unittest", "touch /tmp/held; while [ -e /tmp/held ]; do sleep 0.1; done")
    build_id = await harness.start(script=steps([bash(waits)]))
    await harness.until_event(build_id, "gate_step", count=3)
    await harness.builds.cancel(build_id)
    assert (await harness.finished(build_id)).status == Status.CANCELLED
    reasons = [event.data["reason"] for event in await harness.events(build_id, "snapshot_stored")]
    assert reasons == ["phase", "gate"]
    assert not await _holds_permit(harness, build_id)
    return [EndedWorkflow(f"build-{build_id}", "cancelled")]


@_scenario("no sandbox is free for long when a build is woken: it checks rarely, in its place", continue_as_new_turns=4)
async def woken_without_permit_for_long(harness: WorkerHarness) -> list[EndedWorkflow]:
    stopped = {"kind": "authentication", "after": 1, "times": 1}
    first = await harness.start(script=steps([bash("echo one")], [bash(PRODUCT)]), faults=[stopped])
    await harness.until(first, frozenset({Status.NEEDS_INPUT}))
    second = await harness.start(script=_HELD)
    await harness.until_event(second, "tool_started")
    await harness.builds.wake(first)
    await _until_it_waits(harness, first)

    async def is_patient() -> bool:
        await _next_check(harness, f"build-{first}")
        async with harness.session() as tx:
            row = await tx.session.get_one(Permit, first)
        return row.checked_at > datetime.now(UTC) + timedelta(minutes=50)

    await wait_until(is_patient)
    await release_command(harness, second)
    assert (await harness.finished(second)).status == Status.READY
    await end_preview(harness, second, "closed")  # its permit is free, and the first one is told
    return await ready_build(harness, first)
