"""The paths of an act on many builds."""

import uuid

import pytest

from clients.build_workflows import BuildWorkflows
from db.transaction import transaction
from domain.audit import Author
from domain.bulk import BulkAct
from domain.identity import How
from domain.names import BULK_WORKFLOW, bulk_workflow_id
from domain.payloads import BulkRef
from domain.status import Status
from services.bulk import NewRun, create_run, read_run
from tests.harness.scripts import hold, steps
from tests.harness.worker import WorkerHarness
from tests.workflows.scenarios import EndedWorkflow, Scenario

BUILDS = 2


class _OneBatch(BuildWorkflows):
    """Starts workflows of runs that continue as new after each batch."""

    async def start_bulk(self, run_id: uuid.UUID, *, is_resumed: bool = False) -> bool:
        """Start the workflow of a run."""
        request = BulkRef(run_id=str(run_id), batches=1)
        await self._client.start_workflow(
            BULK_WORKFLOW, request, id=bulk_workflow_id(run_id), task_queue=self._task_queue
        )
        return True


async def bulk_cancelled(harness: WorkerHarness) -> list[EndedWorkflow]:
    """An operator cancels all open builds; the workflow continues as new after each batch."""
    builds = [await harness.start(script=steps([hold()])) for _ in range(BUILDS)]
    for build_id in builds:
        await harness.until_event(build_id, "tool_started")
    acting = harness.sessions.by(Author("operator", How.OPERATOR_TOKEN))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("services.bulk.BATCH_SECONDS", 0.1)
        workflows = _OneBatch(harness.client, harness.settings.temporal_task_queue)
        run_id = (await create_run(acting, workflows, NewRun(BulkAct.CANCEL, "open=true", 1, "a test"))).row.id
        handle = harness.client.get_workflow_handle(bulk_workflow_id(run_id))
        await handle.result()
    for build_id in builds:
        assert (await harness.finished(build_id)).status == Status.CANCELLED
    async with transaction(harness.sessions) as tx:
        assert (await read_run(tx, run_id)).counts.done == BUILDS
    return [EndedWorkflow(handle.id, "done")]


BULK_SCENARIOS = [
    Scenario(
        bulk_cancelled.__name__,
        "an operator cancels all open builds, and the workflow continues as new after each batch",
        bulk_cancelled,
        {},
        own_database=True,
    )
]
