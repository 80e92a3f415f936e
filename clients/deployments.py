"""The workers' deployment in Temporal: its versions, which of them is current, and which have no work left."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from temporalio.api.deployment.v1 import WorkerDeploymentVersion
from temporalio.api.enums.v1 import WorkerDeploymentVersionStatus as Status
from temporalio.api.workflowservice.v1 import (
    DeleteWorkerDeploymentVersionRequest,
    DescribeWorkerDeploymentRequest,
    DescribeWorkerDeploymentResponse,
    SetWorkerDeploymentCurrentVersionRequest,
    SetWorkerDeploymentRampingVersionRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from clients.temporal import ask
from domain.errors import Refused
from domain.versions import DeploymentVersion, VersionState

_RPC_TIMEOUT = timedelta(seconds=10)

_STATES = {
    Status.WORKER_DEPLOYMENT_VERSION_STATUS_CURRENT: VersionState.CURRENT,
    Status.WORKER_DEPLOYMENT_VERSION_STATUS_RAMPING: VersionState.RAMPING,
    Status.WORKER_DEPLOYMENT_VERSION_STATUS_DRAINING: VersionState.DRAINING,
    Status.WORKER_DEPLOYMENT_VERSION_STATUS_DRAINED: VersionState.DRAINED,
}

_REFUSALS = (RPCStatusCode.FAILED_PRECONDITION, RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT)


@dataclass(frozen=True)
class DeploymentState:
    """The versions of a deployment, the newest first."""

    versions: tuple[DeploymentVersion, ...]
    ramp_percent: float = 0
    """How much of the new work the ramping version gets, if there is one."""

    @property
    def current(self) -> str | None:
        """The version that new work gets; None: workers without a version get it."""
        return next((each.build_id for each in self.versions if each.state is VersionState.CURRENT), None)


class Deployments:
    """Reads and changes one deployment."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self.name = name

    async def read(self) -> DeploymentState:
        """Read the deployment's versions. There are none before a worker with a version has started.

        Raises:
            RPCError: Temporal does not answer.
        """
        answer = await self._describe()
        if answer is None:
            return DeploymentState(())
        info = answer.worker_deployment_info
        versions = sorted(info.version_summaries, key=lambda each: each.create_time.ToDatetime(), reverse=True)
        return DeploymentState(
            tuple(
                DeploymentVersion(each.deployment_version.build_id, _STATES.get(each.status, VersionState.INACTIVE))
                for each in versions
            ),
            info.routing_config.ramping_version_percentage,
        )

    async def set_current(self, build_id: str | None, *, without_workers: bool = False) -> None:
        """Give new work to this version; None: to workers without a version.

        Raises:
            Refused: no worker of the version runs, unless that is allowed.
            RPCError: Temporal does not answer.
        """
        with _refusing(build_id):
            await self._client.workflow_service.set_worker_deployment_current_version(
                SetWorkerDeploymentCurrentVersionRequest(
                    namespace=self._client.namespace,
                    deployment_name=self.name,
                    build_id=build_id or "",
                    identity=self._client.identity,
                    ignore_missing_task_queues=without_workers,
                    allow_no_pollers=without_workers,
                ),
                timeout=_RPC_TIMEOUT,
            )

    async def set_ramping(self, build_id: str | None, percent: float) -> None:
        """Give this percentage of the new work to a version; None ends the ramp.

        Raises:
            Refused: no worker of the version runs.
            RPCError: Temporal does not answer.
        """
        with _refusing(build_id):
            await self._client.workflow_service.set_worker_deployment_ramping_version(
                SetWorkerDeploymentRampingVersionRequest(
                    namespace=self._client.namespace,
                    deployment_name=self.name,
                    build_id=build_id or "",
                    percentage=percent if build_id else 0,
                    identity=self._client.identity,
                ),
                timeout=_RPC_TIMEOUT,
            )

    async def delete(self, build_id: str) -> bool:
        """Delete the record of a version that is drained. Returns False if Temporal still needs it.

        Raises:
            RPCError: Temporal does not answer.
        """
        version = WorkerDeploymentVersion(deployment_name=self.name, build_id=build_id)
        request = DeleteWorkerDeploymentVersionRequest(
            namespace=self._client.namespace, deployment_version=version, identity=self._client.identity
        )
        try:
            await self._client.workflow_service.delete_worker_deployment_version(request, timeout=_RPC_TIMEOUT)
        except RPCError as error:
            if error.status is not RPCStatusCode.FAILED_PRECONDITION:
                raise
            return False  # its workers still ask for work
        return True

    async def _describe(self) -> DescribeWorkerDeploymentResponse | None:
        request = DescribeWorkerDeploymentRequest(namespace=self._client.namespace, deployment_name=self.name)
        try:
            service = self._client.workflow_service
            return await ask(lambda: service.describe_worker_deployment(request, timeout=_RPC_TIMEOUT))
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return None


@contextmanager
def _refusing(build_id: str | None) -> Iterator[None]:
    try:
        yield
    except RPCError as error:
        if error.status not in _REFUSALS:
            raise
        what = "Workers without a version" if build_id is None else f"The version {build_id}"
        raise Refused(
            f"{what} can't take the work: {error.message}. Start its workers, wait until `cofounder deploy status` "
            "shows the version, and try again."
        ) from error
