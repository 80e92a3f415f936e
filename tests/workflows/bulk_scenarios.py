"""The paths of an act on many builds."""

from db.transaction import transaction
from domain.audit import Author
from domain.bulk import BulkAct
from domain.identity import How
from domain.names import bulk_workflow_id
from domain.status import Status
from services.bulk import NewRun, create_run, read_run
from tests.harness.scripts import hold, steps
from tests.harness.worker import WorkerHarness
from tests.workflows.scenarios import EndedWorkflow, Scenario


async def bulk_cancelled(harness: WorkerHarness) -> list[EndedWorkflow]:
    """An operator cancels all open builds."""
    build_id = await harness.start(script=steps([hold()]))
    await harness.until_event(build_id, "tool_started")
    acting = harness.sessions.by(Author("operator", How.OPERATOR_TOKEN))
    run = await create_run(acting, harness.builds, NewRun(BulkAct.CANCEL, "open=true", 1, "a test"))
    workflow_id = bulk_workflow_id(run.row.id)
    await harness.client.get_workflow_handle(workflow_id).result()
    assert (await harness.finished(build_id)).status == Status.CANCELLED
    async with transaction(harness.sessions) as tx:
        assert (await read_run(tx, run.row.id)).counts.done == 1
    return [EndedWorkflow(workflow_id, "done")]


BULK_SCENARIOS = [
    Scenario(
        bulk_cancelled.__name__,
        "an operator cancels all open builds, which are one",
        bulk_cancelled,
        {},
        own_database=True,
    )
]
