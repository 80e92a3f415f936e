"""`temporal workflow reset`, Temporal's cure after a bad deploy: the build goes on over its rows."""

import asyncio
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select

from clients.browser import Browser
from clients.sandbox import Role, Sandboxes, sandbox_config
from db.models import Build, Preview, Snapshot
from db.transaction import transaction
from db.users import UserChange, change_user
from domain.names import build_workflow_id, preview_workflow_id
from domain.status import Status
from local.stack import LocalStack
from tests.faults.report import Report
from tests.harness.fault_waits import until_closed
from tests.harness.faults import FaultHarness, fault_harness
from tests.harness.repeats import assert_nothing_was_repeated
from tests.harness.reset import completed_tasks, reset, reset_at, runs_of, until_in
from tests.harness.sample_build import EFFECT, sample_script
from tests.harness.scripts import PRODUCT, SMALL, bash, hold, steps
from tests.harness.wait import wait_until
from tests.harness.worker import FOUR_TURNS_A_DAY, WorkerHarness, poor_founder, worker_harness
from tests.workflows.scenarios import release_command

Figure = Callable[[str], None]

_SIDE_BY_SIDE = 4
"""Builds that are reset at once, each at a task of its own."""

_READY = steps([bash(f"{EFFECT}; {PRODUCT}")])
"""The script of the scenario `ready`, with an effect that would show twice if its command ran twice."""


async def test_reset_in_the_middle(harness: WorkerHarness, figure: Figure) -> None:
    """D4: reset a build to its first task, and to one in its middle, while a command runs."""
    for share in (0.0, 0.5):
        build_id = await harness.start(script=sample_script(hold=True))
        await harness.until_event(build_id, "tool_started", turn=3)
        workflow_id = build_workflow_id(build_id)
        tasks = await completed_tasks(harness.client, workflow_id)
        await reset(harness.client, workflow_id, tasks[int(share * len(tasks))])
        await release_command(harness, build_id)
        row = await harness.finished(build_id)
        assert row.status == Status.READY, row.reason
        await assert_nothing_was_repeated(harness, build_id)
    figure("2 builds ready, each turn paid once")


@pytest.mark.fast
async def test_reset_after_ready(harness: WorkerHarness, figure: Figure) -> None:
    """D4: reset a build that is ready, with its preview open, to its first task, its middle and its last task."""
    build_id = await harness.start(script=SMALL)
    row = await harness.finished(build_id)
    assert row.status == Status.READY, row.reason
    workflow_id, preview_id = build_workflow_id(build_id), preview_workflow_id(build_id)
    await wait_until(lambda: _preview_state(harness, build_id, "open"))
    before = await _facts(harness, build_id)
    sandboxes = Sandboxes(sandbox_config(harness.settings))
    running = await sandboxes.find(str(build_id), Role.GATE)
    tasks = await completed_tasks(harness.client, workflow_id)
    first_run = (await harness.handle(build_id).describe()).run_id
    for task in (tasks[0], tasks[len(tasks) // 2], tasks[-4], tasks[-3], tasks[-2], tasks[-1]):
        run_id = await reset(harness.client, workflow_id, task, first_run)
        handle = harness.client.get_workflow_handle(workflow_id, run_id=run_id)
        assert await handle.result() == row.build_version
        assert await _facts(harness, build_id) == before
    preview = harness.client.get_workflow_handle(preview_id)
    assert len([run async for run in harness.client.list_workflows(f'WorkflowId = "{preview_id}"')]) == 1
    assert await sandboxes.find(str(build_id), Role.GATE) == running
    await sandboxes.close()
    await preview.cancel()
    await assert_nothing_was_repeated(harness, build_id)
    figure(f"version {row.build_version} each time, one preview, {before['events']} events as before")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("script", [_READY, sample_script()], ids=["ready", "with every kind of call"])
async def test_reset_after_each_task(script: dict[str, Any], figure: Figure) -> None:
    """D4: reset a build as soon as it has completed a workflow task, one build for each task."""
    async with fault_harness() as faults:
        report, harness = Report(faults, script), faults.harness()
        worker = await faults.worker(harness)
        await report.reference(harness)
        numbers, resets, lasts = iter(range(1, 1000)), 0, True

        async def reset_one_after_the_other() -> None:
            nonlocal resets, lasts
            while lasts:
                number = next(numbers)
                if await _is_reset_at(faults, report, harness, number):
                    resets += 1
                else:
                    lasts = False

        await asyncio.gather(*(reset_one_after_the_other() for _ in range(_SIDE_BY_SIDE)))
        await worker.end()
    damaged = {name: damage for name, damage in report.cases.items() if damage is not None}
    figure(f"{resets} builds reset, {len(damaged)} of them not as without a reset")
    assert not damaged, "\n".join(f"{name}: {damage}" for name, damage in damaged.items())
    assert resets > 15


async def _is_reset_at(faults: FaultHarness, report: Report, harness: WorkerHarness, number: int) -> bool:
    """Start a build, reset it to its task with this number, and check it. False if it has fewer tasks."""
    build_id = await harness.start(script=report.script)
    is_reset = await reset_at(harness.client, build_workflow_id(build_id), number)
    async with report.case(f"task {number}"):
        row = await until_closed(harness, build_id)
        await report.check(harness, build_id)
        await assert_nothing_was_repeated(harness, build_id)
        assert (row.status, row.build_version) == (Status.READY, 1)
    return is_reset


async def test_reset_of_an_earlier_run(stack: LocalStack, browser: Browser, figure: Figure) -> None:
    """D4: reset a build that has continued as new to tasks of its earlier runs, in a command and after it is ready."""
    script = steps(*([bash(f"echo {number}")] for number in range(5)), [hold()], [bash(PRODUCT)])
    async with worker_harness(stack, browser, continue_as_new_turns=2) as harness:
        build_id = await harness.start(script=script)
        await harness.until_event(build_id, "tool_started", turn=6)
        workflow_id = build_workflow_id(build_id)
        earlier = (await runs_of(harness.client, workflow_id))[:-1]
        assert len(earlier) >= 2
        points = []
        for run_id in earlier:
            tasks = await completed_tasks(harness.client, workflow_id, run_id)
            points += [(run_id, task) for task in (tasks[0], tasks[len(tasks) // 2], tasks[-1])]
        for run_id, task in points:
            await reset(harness.client, workflow_id, task, run_id)
            await until_in(harness.client, workflow_id, "dispatch_tool")
        await release_command(harness, build_id)
        row = await harness.finished(build_id)
        assert row.status == Status.READY, row.reason
        await wait_until(lambda: _preview_state(harness, build_id, "open"))
        before = await _facts(harness, build_id)
        for run_id, task in points:
            run_id = await reset(harness.client, workflow_id, task, run_id)
            handle = harness.client.get_workflow_handle(workflow_id, run_id=run_id)
            assert await handle.result() == row.build_version == 1
            assert await _facts(harness, build_id) == before
        await assert_nothing_was_repeated(harness, build_id)
        await harness.client.get_workflow_handle(preview_workflow_id(build_id)).cancel()
    figure(f"{len(earlier)} earlier runs, {2 * len(points)} resets, ready once, each turn paid once")


async def test_reset_asleep_and_queued(harness: WorkerHarness, figure: Figure) -> None:
    """D4: reset a build that sleeps and one that is queued to each of their tasks; then let them go on."""
    user_id, _ = await poor_founder(harness, FOUR_TURNS_A_DAY)
    script = steps([bash("echo one")], [bash("echo two")], [bash("echo three")], [bash(PRODUCT)])
    asleep = await harness.start(user_id, script=script)
    row = await harness.until(asleep, frozenset({Status.SLEEPING}))
    assert row.status == Status.SLEEPING, row.reason
    owner = await harness.founder(await harness.plan(None, concurrent_builds=1))
    first = await harness.start(owner, script=steps([hold()], [bash(PRODUCT)]))
    await harness.until_event(first, "tool_started")
    queued = await harness.start(owner, script=SMALL)
    await harness.until(queued, frozenset({Status.QUEUED}))
    resets = [await _reset_to_each_task(harness, each) for each in (asleep, queued)]
    async with transaction(harness.sessions) as tx:
        await change_user(tx, user_id, UserChange(plan="cto_scale"), datetime.now(UTC).date())
    await harness.builds.wake(asleep)
    await release_command(harness, first)
    for build_id in (asleep, first, queued):
        row = await harness.finished(build_id)
        assert (row.status, row.build_version) == (Status.READY, 1), row.reason
        await assert_nothing_was_repeated(harness, build_id)
        await harness.client.get_workflow_handle(preview_workflow_id(build_id)).cancel()
    figure(f"{resets[0]} resets asleep, {resets[1]} queued, all ready")


async def _reset_to_each_task(harness: WorkerHarness, build_id: uuid.UUID) -> int:
    """Reset a build that waits to each of its tasks in turn; it must wait on as before, and its feed must not grow.

    Returns how often it was reset.
    """
    await harness.until_idle(build_id)
    status, feed = (await harness.row(build_id)).status, len(await harness.events(build_id))
    first_run = (await harness.handle(build_id).describe()).run_id
    tasks = await completed_tasks(harness.client, build_workflow_id(build_id))
    for task in tasks:
        await reset(harness.client, build_workflow_id(build_id), task, first_run)
        await harness.until_idle(build_id)
        assert (await harness.row(build_id)).status == status
        new = (await harness.events(build_id))[feed:]
        assert not new, [(task, tasks, event.type, event.data) for event in new]
    return len(tasks)


async def _preview_state(harness: WorkerHarness, build_id: uuid.UUID, state: str) -> bool:
    async with harness.session() as tx:
        preview = await tx.session.get(Preview, build_id)
        return preview is not None and preview.state == state


async def _facts(harness: WorkerHarness, build_id: uuid.UUID) -> dict[str, Any]:
    """What founders see of a build."""
    async with harness.session() as tx:
        build = await tx.session.get_one(Build, build_id)
        preview = await tx.session.get_one(Preview, build_id)
        rows = {
            table.__tablename__: {column.name: getattr(row, column.name) for column in table.__table__.columns}
            for table, row in ((Build, build), (Preview, preview))
        }
        numbers = select(Snapshot.number).where(Snapshot.build_id == build_id).order_by(Snapshot.number)
        snapshots = list(await tx.session.scalars(numbers))
    return {**rows, "events": len(await harness.events(build_id)), "snapshots": snapshots}
