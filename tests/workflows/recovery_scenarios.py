"""Paths of a build whose workflow is reset, or started again over the build's rows."""

import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from temporalio.common import WorkflowIDReusePolicy

from db.transaction import transaction
from db.users import UserChange, change_user
from domain.names import BUILD_WORKFLOW, build_workflow_id
from domain.payloads import BuildInput
from domain.status import Status
from tests.harness.reset import completed_tasks, reset
from tests.harness.scripts import PRODUCT, SMALL, bash, hold, steps
from tests.harness.wait import wait_until
from tests.harness.worker import FOUR_TURNS_A_DAY, WorkerHarness, poor_founder
from tests.workflows.scenarios import Drive, EndedWorkflow, Scenario, ready_build, release_command, until_waiting

RECOVERY_SCENARIOS: list[Scenario] = []


def _scenario(
    path: str, **settings: Any
) -> Callable[[Callable[[WorkerHarness], Awaitable[list[EndedWorkflow]]]], None]:
    def add(drive: Drive) -> None:
        RECOVERY_SCENARIOS.append(Scenario(drive.__name__, path, drive, settings))

    return add


async def start_over(harness: WorkerHarness, build_id: uuid.UUID) -> None:
    """Terminate the build's workflow and start another one that knows nothing, as in an empty namespace."""
    await harness.handle(build_id).terminate("a scenario")
    await harness.client.start_workflow(
        BUILD_WORKFLOW,
        BuildInput(build_id=str(build_id)),
        id=build_workflow_id(build_id),
        task_queue=harness.settings.temporal_task_queue,
        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
    )


async def until_state_is_read(harness: WorkerHarness, build_id: uuid.UUID) -> None:
    """Wait until the build's latest run has read its state from the rows."""

    async def is_read() -> bool:
        history = await harness.handle(build_id).fetch_history()
        names = [event.activity_task_scheduled_event_attributes.activity_type.name for event in history.events]
        return "load_state" in names

    await wait_until(is_read)
    await harness.until_idle(build_id)


@_scenario("reset to an early task while it runs")
async def reset_early(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=steps([bash("echo one")], [bash("echo two")], [hold()], [bash(PRODUCT)]))
    await harness.until_event(build_id, "tool_started", turn=3)
    tasks = await completed_tasks(harness.client, build_workflow_id(build_id))
    await reset(harness.client, build_workflow_id(build_id), tasks[len(tasks) // 2])
    await release_command(harness, build_id)
    workflows = await ready_build(harness, build_id)
    assert await harness.statuses(build_id) == ["starting", "scaffold", "code", "checks", "ready"]
    assert await harness.events(build_id, "resumed") == []
    return workflows


@_scenario("reset after it was ready")
async def reset_ready(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=SMALL)
    assert (await harness.finished(build_id)).status == Status.READY
    tasks = await completed_tasks(harness.client, build_workflow_id(build_id))
    await reset(harness.client, build_workflow_id(build_id), tasks[len(tasks) // 2])
    assert await harness.handle(build_id).result() == 1
    return await ready_build(harness, build_id)


@_scenario("started again over its rows, as in an empty namespace, while a command runs")
async def started_over(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=steps([bash("echo one")], [hold()], [bash(PRODUCT)]))
    await harness.until_event(build_id, "tool_started", turn=2)
    await start_over(harness, build_id)
    await release_command(harness, build_id)
    workflows = await ready_build(harness, build_id)
    assert await harness.statuses(build_id) == ["starting", "scaffold", "code", "checks", "ready"]
    assert len(await harness.events(build_id, "tool_started")) == 3
    return workflows


@_scenario("started again over its rows while it sleeps: it sleeps on")
async def started_over_asleep(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id, _ = await poor_founder(harness, FOUR_TURNS_A_DAY)
    script = steps([bash("echo one")], [bash("echo two")], [bash("echo three")], [bash(PRODUCT)])
    build_id = await harness.start(user_id, script=script)
    await harness.until(build_id, frozenset({Status.SLEEPING}))
    feed = len(await harness.events(build_id))
    await start_over(harness, build_id)
    await until_state_is_read(harness, build_id)
    assert (await harness.row(build_id)).status == Status.SLEEPING
    assert len(await harness.events(build_id)) == feed, "its feed says already that it sleeps"
    async with transaction(harness.sessions) as tx:
        await change_user(tx, user_id, UserChange(plan="cto_scale"), datetime.now(UTC).date())
    await harness.builds.wake(build_id)
    return await ready_build(harness, build_id)


@_scenario("started again over its rows while its founder is asked: it asks the same")
async def started_over_asking(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=steps(*([bash("false")] for _ in range(3)), [bash(PRODUCT)]))
    reason = await until_waiting(harness, build_id, "founder")
    await harness.until_idle(build_id)
    statuses = await harness.statuses(build_id)
    await start_over(harness, build_id)
    await until_state_is_read(harness, build_id)
    assert await until_waiting(harness, build_id, "founder") == reason
    assert await harness.statuses(build_id) == statuses
    assert len(await harness.events(build_id, "question")) == 1
    await harness.builds.wake(build_id)
    return await ready_build(harness, build_id)
