"""Resets of workflows, as an operator does them with `temporal workflow reset`."""

import uuid

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client


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
