"""Builds of many users in one queue of Temporal: users take turns."""

import asyncio
import uuid

from temporalio import workflow
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from clients.build_workflows import BuildToStart, BuildWorkflows
from clients.temporal import connect_temporal
from domain.names import BUILD_WORKFLOW, build_workflow_id
from domain.payloads import BuildInput
from local.stack import LocalStack
from tests.harness.wait import DEADLINE, wait_until

_OF_A = 40

_served: list[str] = []


@workflow.defn(name=BUILD_WORKFLOW)
class Line:
    """Stands in for a build: notes when its task was served."""

    @workflow.run
    async def run(self, request: BuildInput) -> int:
        _served.append(request.build_id)
        return 1


async def until_queued(client: Client, queue: str, tasks: int) -> None:
    """Wait until this many tasks are in the queue's backlog.

    Users take turns only there. A start is answered before its task is queued, so the last one might otherwise arrive
    when a worker has served all others.
    """
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        report_stats=True,
    )

    async def are_queued() -> bool:
        described = await client.workflow_service.describe_task_queue(request)
        return described.stats.approximate_backlog_count >= tasks

    await wait_until(are_queued)


async def test_a_user_with_many_builds_does_not_go_before_all_others(stack: LocalStack) -> None:
    queue = f"test-{uuid.uuid4()}"
    client = await connect_temporal(stack.environment)
    builds = BuildWorkflows(client, queue)
    crowd = [BuildToStart(uuid.uuid4(), "a" * 100, uuid.uuid4(), "free") for _ in range(_OF_A)]
    other = BuildToStart(uuid.uuid4(), "b", uuid.uuid4(), "free")
    for build in [*crowd, other]:
        await builds.start(build)
    await until_queued(client, queue, _OF_A + 1)
    one_at_a_time = Worker(
        client,
        task_queue=queue,
        workflows=[Line],
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_concurrent_workflow_tasks=1,
        max_cached_workflows=0,
        max_concurrent_workflow_task_polls=1,
    )

    async def all_ended() -> bool:
        return len(_served) > _OF_A

    async with one_at_a_time:
        await wait_until(all_ended, look_seconds=0.1)
        async with asyncio.timeout(DEADLINE):
            await client.get_workflow_handle(build_workflow_id(other.build_id)).result()
    assert _served.index(str(other.build_id)) < _OF_A // 4, "B waits behind A's builds"
