"""The path of an erasure."""

from clients.build_workflows import BuildWorkflows
from db.projects import find_project
from db.session import Access
from db.transaction import transaction
from domain.names import erasure_workflow_id
from services.erasure import erase_project
from tests.harness.scripts import hold, steps
from tests.harness.worker import WorkerHarness
from tests.workflows.scenarios import EndedWorkflow, Scenario


async def erased(harness: WorkerHarness) -> list[EndedWorkflow]:
    """A project is deleted while a build of it is open."""
    user = await harness.founder()
    project_id = await harness.project(user)
    build_id = await harness.start(user, project_id=project_id, script=steps([hold()]))
    await harness.until_event(build_id, "tool_started")
    async with transaction(harness.sessions) as tx:
        project = await find_project(tx, user, project_id)
        assert project is not None
    workflows = BuildWorkflows(harness.client, harness.settings.temporal_task_queue)
    erasure = await erase_project(harness.sessions.acting(Access(user)), workflows, user, project_id, project.name)
    workflow_id = erasure_workflow_id(erasure.id)
    await harness.client.get_workflow_handle(workflow_id).result()
    async with transaction(harness.sessions) as tx:
        assert await find_project(tx, user, project_id) is None
    return [EndedWorkflow(workflow_id, "done")]


ERASURE_SCENARIOS = [
    Scenario(erased.__name__, "a project is deleted while a build of it is open", erased, {}, own_database=True)
]
