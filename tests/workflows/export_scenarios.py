"""The paths of an export."""

from clients.build_workflows import BuildWorkflows
from db.models import StoredExport
from db.session import Access
from db.stored_exports import insert_export
from db.transaction import transaction
from domain.names import export_workflow_id
from services.stored_exports import request_export
from tests.harness.worker import WorkerHarness
from tests.workflows.scenarios import EndedWorkflow, Scenario


async def exported(harness: WorkerHarness) -> list[EndedWorkflow]:
    """A project is written into the object store."""
    user = await harness.founder()
    project_id = await harness.project(user)
    workflows = BuildWorkflows(harness.client, harness.settings.temporal_task_queue)
    export = await request_export(harness.sessions.acting(Access(user)), workflows, user, project_id, None)
    workflow_id = export_workflow_id(export.id)
    await harness.client.get_workflow_handle(workflow_id).result()
    async with transaction(harness.sessions) as tx:
        assert (await tx.session.get_one(StoredExport, export.id)).stored_at is not None
    return [EndedWorkflow(workflow_id, "done")]


async def export_refused(harness: WorkerHarness) -> list[EndedWorkflow]:
    """Its user is not a member of the project any more."""
    user = await harness.founder()
    project_id = await harness.project(await harness.founder())
    async with transaction(harness.sessions) as tx:
        export = await insert_export(tx, user, project_id, user, None)
        assert export is not None
    await BuildWorkflows(harness.client, harness.settings.temporal_task_queue).start_export(export.id)
    workflow_id = export_workflow_id(export.id)
    await harness.client.get_workflow_handle(workflow_id).result()
    async with transaction(harness.sessions) as tx:
        assert (await tx.session.get_one(StoredExport, export.id)).failed_at is not None
    return [EndedWorkflow(workflow_id, "done")]


EXPORT_SCENARIOS = [
    Scenario(exported.__name__, "a project is exported in the background", exported, {}),
    Scenario(export_refused.__name__, "an export whose user left the project", export_refused, {}),
]
