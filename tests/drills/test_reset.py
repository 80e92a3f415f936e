"""`temporal workflow reset`, Temporal's cure after a bad deploy: the build goes on over its rows."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from clients.sandbox import Role, Sandboxes, sandbox_config
from db.models import Build, Preview, Snapshot
from domain.names import build_workflow_id, preview_workflow_id
from domain.status import Status
from tests.harness.repeats import assert_nothing_was_repeated
from tests.harness.reset import completed_tasks, reset
from tests.harness.sample_build import sample_script
from tests.harness.scripts import SMALL
from tests.harness.wait import wait_until
from tests.harness.worker import WorkerHarness
from tests.workflows.scenarios import release_command

Figure = Callable[[str], None]


@pytest.mark.fast
async def test_reset_in_the_middle(harness: WorkerHarness, figure: Figure) -> None:
    """Reset a build to its first task, and to one in its middle, while a command runs."""
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
    """Reset a build that is ready, with its preview open, to its first task, its middle and its last task."""
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
        snapshots = list(await tx.session.scalars(select(Snapshot.number).where(Snapshot.build_id == build_id)))
    return {**rows, "events": len(await harness.events(build_id)), "snapshots": snapshots}
