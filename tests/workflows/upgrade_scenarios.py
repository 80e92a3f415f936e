"""The paths on which builds move to another version of the workers."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import update
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from clients.build_workflows import version_of
from clients.deployments import Deployments
from db import money
from db.models import Build, DependencyState, Preview
from db.transaction import transaction
from domain.errors import Refused
from domain.names import EXTEND, UPGRADE, WAKE, build_workflow_id, preview_workflow_id
from domain.status import Dependency, Status
from tests.harness.away import Away, away_harness
from tests.harness.repeats import assert_nothing_was_repeated
from tests.harness.scripts import PRODUCT, SMALL, bash, hold, steps
from tests.harness.wait import wait_until
from tests.harness.worker import FOUR_TURNS_A_DAY, WorkerHarness, poor_founder
from tests.workflows.outage_scenarios import recover
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
from worker import wired_worker

UPGRADE_SCENARIOS: list[Scenario] = []


def _scenario(
    path: str, **settings: Any
) -> Callable[[Callable[[WorkerHarness], Awaitable[list[EndedWorkflow]]]], None]:
    def add(drive: Drive) -> None:
        versions = {"temporal_deployment_name": f"of-{drive.__name__}", "temporal_worker_build_id": "one"}
        UPGRADE_SCENARIOS.append(Scenario(drive.__name__, path, drive, settings | versions, own_database=True))

    return add


async def give_work_to(harness: WorkerHarness, version: str) -> None:
    """Make a version current once its workers have asked for work, be it on another task queue."""
    deployments = Deployments(harness.client, harness.settings.temporal_deployment_name)

    async def is_current() -> bool:
        try:
            if all(each.build_id != version for each in (await deployments.read()).versions):
                return False
            await deployments.set_current(version, without_workers=True)
        except Refused:
            return False
        return (await deployments.read()).current == version

    await wait_until(is_current, look_seconds=1.0)  # Temporal allows few changes a second


@asynccontextmanager
async def second_version(harness: WorkerHarness) -> AsyncIterator[None]:
    """Run a worker of another version beside the first one, and give it the new work."""
    settings = harness.settings.model_copy(update={"temporal_worker_build_id": "two"})
    async with wired_worker(settings, harness.client, None, SandboxedWorkflowRunner()) as worker, worker:
        await give_work_to(harness, "two")
        yield


async def versions_of_runs(harness: WorkerHarness, build_id: uuid.UUID) -> list[str]:
    """The versions of a build's runs, in order; each run must have kept to one."""
    runs = [run async for run in harness.client.list_workflows(f'WorkflowId = "build-{build_id}"')]
    found: list[str] = []
    for run in sorted(runs, key=lambda run: run.start_time):
        handle = harness.client.get_workflow_handle(run.id, run_id=run.run_id)
        versions = {
            event.workflow_task_completed_event_attributes.deployment_version.build_id
            for event in (await handle.fetch_history()).events
            if event.HasField("workflow_task_completed_event_attributes")
        }
        assert len(versions) == 1, "a run changed its version"
        found += versions
    return found


async def versions_if_all_are_visible(harness: WorkerHarness, build_id: uuid.UUID) -> list[str] | None:
    versions = await versions_of_runs(harness, build_id)
    return versions if len(versions) > 1 else None


async def activities_of_last_run(harness: WorkerHarness, build_id: uuid.UUID) -> list[str]:
    """The names of the activities in a build's last run."""
    return await activities_of(harness, build_workflow_id(build_id))


async def activities_of(harness: WorkerHarness, workflow_id: str) -> list[str]:
    """The names of the activities in a workflow's last run."""
    return [
        event.activity_task_scheduled_event_attributes.activity_type.name
        for event in (await harness.client.get_workflow_handle(workflow_id).fetch_history()).events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]


async def until_moved(harness: WorkerHarness, build_id: uuid.UUID) -> None:
    """Ask the build to move, and wait until it rests in a run of the second version."""
    await ask_until_moved(harness, build_workflow_id(build_id))
    await harness.until_idle(build_id)


async def ask_until_moved(harness: WorkerHarness, workflow_id: str) -> None:
    """Ask a workflow to move until it has, as `cofounder deploy settle` does: one that is asked before its shard of the
    server knows of the new version goes on waiting."""
    handle = harness.client.get_workflow_handle(workflow_id)

    async def has_moved() -> bool:
        if version_of(await handle.describe()) == "two":
            return True
        await handle.signal(UPGRADE)
        return False

    await wait_until(has_moved, look_seconds=1.0)


async def assert_rests(harness: WorkerHarness, before: Build, activities: tuple[str, ...] = ()) -> None:
    """The build waits as before in a run of the second version, which has used nothing but these activities."""
    row = await harness.row(before.id)
    assert (row.status, row.status_seq, row.reason) == (before.status, before.status_seq, before.reason)
    assert tuple(await activities_of_last_run(harness, before.id)) == activities


@_scenario("builds move to another version between turns, asleep, queued and while they wait for their founder")
async def moved(harness: WorkerHarness) -> list[EndedWorkflow]:
    await give_work_to(harness, "one")
    busy = await harness.start(script=steps([hold()], [bash("echo 2")], [bash(PRODUCT)]))
    poor, _ = await poor_founder(harness, FOUR_TURNS_A_DAY)
    sleeper = await harness.start(
        poor, script=steps([bash("echo 1")], [bash("echo 2")], [bash("echo 3")], [bash(PRODUCT)])
    )
    asker = await harness.start(script=steps(*[[bash("echo same")]] * 5, [bash(PRODUCT)]))
    plan = await harness.plan(None, concurrent_builds=1)
    user_id = await harness.founder(plan)
    ahead = await harness.start(user_id, script=steps([hold()], [bash(PRODUCT)]))
    await harness.until_event(ahead, "tool_started")
    queued = await harness.start(user_id, script=SMALL)
    resting = [
        await until_row(harness, sleeper, lambda row: row.status == Status.SLEEPING),
        await until_row(harness, asker, lambda row: row.status == Status.NEEDS_INPUT),
        await until_row(harness, queued, lambda row: row.status == Status.QUEUED and row.reason is not None),
    ]
    await harness.until_event(busy, "tool_started")
    for each in resting:
        await harness.until_idle(each.id)
    async with second_version(harness):
        for each in resting:
            await until_moved(harness, each.id)
            await assert_rests(harness, each, ("claim_place",) if each.id == queued else ())
        ended = []
        for build_id in (busy, ahead):
            await release_command(harness, build_id)
        await harness.handle(asker).signal(WAKE)
        async with transaction(harness.sessions) as tx:
            await money.top_up(tx, poor, 10_000_000, datetime.now(UTC).date(), key="once")
        await harness.builds.signal_budget_changed(sleeper)
        for build_id in (busy, ahead, queued, asker, sleeper):
            ended += await ready_build(harness, build_id)
            assert await wait_until(partial(versions_if_all_are_visible, harness, build_id)) == ["one", "two"]
        statuses = await harness.statuses(sleeper)
        assert statuses.count("sleeping") == 1, "the wait was announced twice"
    return ended


@_scenario("it moves while the sandbox of its tool call is out of reach: the call goes on from there, and ran once")
async def moved_while_away(harness: WorkerHarness) -> list[EndedWorkflow]:
    async with away_harness(harness) as away:
        harness = away.harness
        await give_work_to(harness, "one")
        build_id = await harness.start(
            script=steps([hold("echo once >> effects"), bash("cat effects")], [bash(PRODUCT)])
        )
        await harness.until_event(build_id, "tool_started")
        away.take(Dependency.SANDBOX)
        before = await until_row(harness, build_id, lambda row: row.status == Status.WAITING)
        async with second_version(harness):
            await until_moved(harness, build_id)
            after = await harness.row(build_id)
            assert (after.status, after.status_seq) == (before.status, before.status_seq)
            away.give_back(Dependency.SANDBOX)
            await harness.builds.signal_recovered(build_id)
            await release_command(harness, build_id)
            ended = await ready_build(harness, build_id)
            await assert_nothing_was_repeated(harness, build_id)
    return ended


@_scenario("it moves while it waits for the store at the gate: it waits on, without another try or a word in the feed")
async def moved_at_gate(harness: WorkerHarness) -> list[EndedWorkflow]:
    async with away_harness(harness) as away:
        harness = away.harness
        await give_work_to(harness, "one")
        build_id = await harness.start(script=steps([hold(PRODUCT)]))
        await harness.until_event(build_id, "tool_started")
        away.take(Dependency.STORE)
        await release_command(harness, build_id)
        await until_row(harness, build_id, lambda row: row.status == Status.WAITING)
        await until_known_to_be_away(away, Dependency.STORE)
        await harness.until_idle(build_id)
        before = await harness.row(build_id)
        assert (before.status, before.dependency) == (Status.WAITING, Dependency.STORE)
        async with second_version(harness):
            await until_moved(harness, build_id)
            after = await harness.row(build_id)
            assert (after.status, after.status_seq) == (before.status, before.status_seq)
            assert set(await activities_of_last_run(harness, build_id)) <= {"read_dependency"}
            away.give_back(Dependency.STORE)
            await recover(away, build_id)
            ended = await ready_build(harness, build_id)
            await assert_nothing_was_repeated(harness, build_id)
    return ended


async def until_known_to_be_away(away: Away, dependency: Dependency) -> None:
    """Probe until builds wait without trying, which would change their status for a moment."""

    async def is_known() -> bool:
        async with transaction(away.harness.sessions) as tx:
            await tx.session.execute(update(DependencyState).values(next_probe_at=datetime.now(UTC)))
        await away.probe()
        async with transaction(away.harness.sessions) as tx:
            row = await tx.session.get(DependencyState, dependency)
        return row is not None and row.state == "down"

    await wait_until(is_known, look_seconds=0.5)


@_scenario("an open preview moves to another version: its product runs on, and it closes at the same time")
async def moved_preview(harness: WorkerHarness) -> list[EndedWorkflow]:
    await give_work_to(harness, "one")
    build_id = await harness.start(script=SMALL)
    await harness.finished(build_id)
    await until_preview(harness, build_id, "open")
    handle = harness.client.get_workflow_handle(preview_workflow_id(build_id))
    before, announced = await _preview_row(harness, build_id), len(await harness.events(build_id, "preview"))
    async with second_version(harness):
        await ask_until_moved(harness, handle.id)
        after = await _preview_row(harness, build_id)
        assert (after.state, after.sandbox_id, after.expires_at) == ("open", before.sandbox_id, before.expires_at)
        assert len(await harness.events(build_id, "preview")) == announced, "it was announced again"
        assert await activities_of(harness, handle.id) == []
        await handle.signal(EXTEND, 7200)
        await wait_until(partial(_is_open_longer, harness, build_id, before.expires_at))
        return [await end_preview(harness, build_id, "cancelled")]


async def _preview_row(harness: WorkerHarness, build_id: uuid.UUID) -> Preview:
    async with harness.session() as tx:
        return await tx.session.get_one(Preview, build_id)


async def _is_open_longer(harness: WorkerHarness, build_id: uuid.UUID, expires_at: datetime | None) -> bool:
    row = await _preview_row(harness, build_id)
    return row.expires_at is not None and expires_at is not None and row.expires_at > expires_at
