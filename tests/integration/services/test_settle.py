"""Moving to another version of the workers, to its end: the records of versions without work are deleted."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowHandle
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.worker import UnsandboxedWorkflowRunner, Worker, WorkerDeploymentConfig

from clients.build_workflows import BuildWorkflows
from clients.deployments import Deployments
from clients.temporal import connect_temporal
from domain.errors import Refused
from domain.names import BUILD_WORKFLOW, UPGRADE
from domain.versions import VersionState
from local.stack import LocalStack
from services.settle import Progress, Settled, settle
from tests.harness.drainage import NOTICED_SOON
from tests.harness.wait import wait_until

QUEUE = "settled"
DEPLOYMENT = "settled"


@workflow.defn(name=BUILD_WORKFLOW, versioning_behavior=VersioningBehavior.PINNED)
class Resting:
    """Stands in for a build that waits: it moves when it is asked, and ends when it is told."""

    def __init__(self) -> None:
        self._asked = False
        self._ended = False

    @workflow.run
    async def run(self) -> None:
        """Wait in this run, or in the next one on another version."""
        await workflow.wait_condition(lambda: self._asked or self._ended)
        if not self._ended:
            workflow.continue_as_new(
                initial_versioning_behavior=workflow.ContinueAsNewVersioningBehavior.AUTO_UPGRADE,
            )

    @workflow.signal(name=UPGRADE)
    def upgrade(self) -> None:
        """Move to the current version."""
        self._asked = True

    @workflow.signal
    def end(self) -> None:
        """End."""
        self._ended = True


@asynccontextmanager
async def _worker(client: Client, version: str) -> AsyncIterator[None]:
    config = WorkerDeploymentConfig(version=WorkerDeploymentVersion(DEPLOYMENT, version), use_worker_versioning=True)
    runner = UnsandboxedWorkflowRunner()
    async with Worker(client, task_queue=QUEUE, workflows=[Resting], workflow_runner=runner, deployment_config=config):
        yield


async def _give_work_to(deployments: Deployments, version: str) -> None:
    async def is_current() -> bool:
        try:
            await deployments.set_current(version)
        except Refused:
            return False  # its worker has not asked for work yet
        return (await deployments.read()).current == version

    await wait_until(is_current, look_seconds=0.5)


async def _settle(client: Client, version: str) -> tuple[Settled, list[Progress]]:
    reports: list[Progress] = []
    deployments, workflows = Deployments(client, DEPLOYMENT), BuildWorkflows(client, QUEUE)
    settled = await settle(deployments, workflows, version, rate=20, report=reports.append)
    return settled, reports


@pytest.mark.thorough
async def test_the_record_of_the_old_version_goes_once_its_worker_is_stopped() -> None:
    async with LocalStack(parts=["temporal"], durable=False, temporal_ui=False, temporal_config=NOTICED_SOON) as stack:
        client = await connect_temporal(stack.environment)
        deployments = Deployments(client, DEPLOYMENT)
        async with _worker(client, "new"):
            async with _worker(client, "old"):
                await _give_work_to(deployments, "old")
                build: WorkflowHandle[Resting, None] = await client.start_workflow(
                    Resting.run, id="build-1", task_queue=QUEUE
                )
                await wait_until(lambda: _keeps_to(client, "old"))
                await _give_work_to(deployments, "new")
                settled, reports = await _settle(client, "new")
                assert (reports[0].builds, reports[0].by_version) == (1, {"old": 1})
                assert (settled.left.builds, settled.left.by_version) == (0, {})
                await wait_until(lambda: _is(deployments, "old", VersionState.DRAINED))
                assert (await _settle(client, "new"))[0].deleted == [], "its worker still asks for work"
            deleted = await wait_until(lambda: _deleted(client))
            assert deleted == ["old"]
            assert [each.build_id for each in (await deployments.read()).versions] == ["new"]
            await build.signal(Resting.end)
            await build.result()


async def _keeps_to(client: Client, version: str) -> bool:
    """Whether Temporal lists the build with this version."""
    return not await BuildWorkflows(client, QUEUE).elsewhere(version) and bool(
        [each async for each in client.list_workflows("ExecutionStatus = 'Running'")]
    )


async def _is(deployments: Deployments, version: str, state: VersionState) -> bool:
    return state in [each.state for each in (await deployments.read()).versions if each.build_id == version]


async def _deleted(client: Client) -> list[str]:
    return (await _settle(client, "new"))[0].deleted
