"""Builds of many users in one queue of Temporal: users take turns."""

import asyncio
import uuid

from temporalio import workflow
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


async def test_a_user_with_many_builds_does_not_go_before_all_others(stack: LocalStack) -> None:
    queue = f"test-{uuid.uuid4()}"
    client = await connect_temporal(stack.environment)
    builds = BuildWorkflows(client, queue)
    crowd = [BuildToStart(uuid.uuid4(), "a" * 100, uuid.uuid4(), "free") for _ in range(_OF_A)]
    other = BuildToStart(uuid.uuid4(), "b", uuid.uuid4(), "free")
    for build in [*crowd, other]:
        await builds.start(build)
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
        return len(_served) == _OF_A + 1

    async with one_at_a_time:
        await wait_until(all_ended, look_seconds=0.1)
        async with asyncio.timeout(DEADLINE):
            await client.get_workflow_handle(build_workflow_id(other.build_id)).result()
    assert _served.index(str(other.build_id)) < _OF_A // 2, "B waits behind all of A's builds"
