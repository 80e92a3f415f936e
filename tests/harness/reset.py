"""Resets of workflows, as an operator does them with `temporal workflow reset`."""

import uuid

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client

from tests.harness.wait import wait_until


async def completed_tasks(client: Client, workflow_id: str, run_id: str | None = None) -> list[int]:
    """Return the ids of the events that a run can be reset to: one for each workflow task that it has completed."""
    history = await client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
    done = EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    return [event.event_id for event in history.events if event.event_type == done]


async def reset(client: Client, workflow_id: str, event_id: int, run_id: str | None = None) -> str:
    """Reset a run to before the workflow task that this event ended. Return the id of the new run.

    Without `run_id`, it is the workflow's latest run.
    """
    request = ResetWorkflowExecutionRequest(
        namespace=client.namespace,
        workflow_execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id or ""),
        reason="a drill",
        request_id=str(uuid.uuid4()),
        workflow_task_finish_event_id=event_id,
    )
    return (await client.workflow_service.reset_workflow_execution(request)).run_id


async def reset_at(client: Client, workflow_id: str, number: int) -> bool:
    """Wait until a workflow's first run has completed this many workflow tasks, and reset it to the last of them at
    once. False if it has closed with fewer.
    """
    handle = client.get_workflow_handle(workflow_id)
    run_id, done = (await handle.describe()).run_id, 0
    run = client.get_workflow_handle(workflow_id, run_id=run_id)
    async for event in run.fetch_history_events(wait_new_event=True):
        done += event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
        if done == number:
            await reset(client, workflow_id, event.event_id, run_id)
            return True
    return False


async def runs_of(client: Client, workflow_id: str) -> list[str]:
    """Return the ids of the runs of a chain, each of which continues the one before as new, oldest first."""
    run_id: str | None = (await client.get_workflow_handle(workflow_id).describe()).run_id
    runs: list[str] = []
    while run_id:
        runs.insert(0, run_id)
        events = client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history_events(page_size=1)
        started = (await anext(events)).workflow_execution_started_event_attributes
        run_id = started.continued_execution_run_id
    return runs


async def until_in(client: Client, workflow_id: str, activity: str) -> None:
    """Wait until a worker serves this activity of the workflow's latest run."""

    async def is_served() -> bool:
        described = (await client.get_workflow_handle(workflow_id).describe()).raw_description
        return any(
            each.activity_type.name == activity and each.HasField("last_started_time")
            for each in described.pending_activities
        )

    await wait_until(is_served)
