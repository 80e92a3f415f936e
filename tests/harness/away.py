"""A worker with a fault proxy in front of the store, the sandbox service and the model, to take each of them away."""

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from domain.names import PROBER_ID, PROBER_WORKFLOW
from domain.status import Dependency
from tests.harness.fault_proxy import FaultProxy
from tests.harness.worker import WorkerHarness
from worker import wired_worker

_SETTINGS: Mapping[Dependency, tuple[str, ...]] = {
    Dependency.STORE: ("s3_endpoint_url",),
    Dependency.SANDBOX: ("e2b_api_url", "e2b_sandbox_url"),
    Dependency.MODEL: ("anthropic_base_url",),
}


class Away:
    """The proxies, by dependency."""

    def __init__(self, harness: WorkerHarness, proxies: Mapping[Dependency, FaultProxy]) -> None:
        self.harness = harness
        self.proxies = proxies

    def take(self, dependency: Dependency) -> None:
        """Take a dependency away: it answers each request with an error."""
        self.proxies[dependency].refuse(503)

    def give_back(self, dependency: Dependency) -> None:
        """Let a dependency answer again."""
        self.proxies[dependency].heal()

    async def probe(self) -> str:
        """Run the prober once, and return the id of its workflow."""
        workflow_id = f"{PROBER_ID.split('-')[1]}-{uuid.uuid4()}"
        queue = self.harness.settings.temporal_task_queue
        await self.harness.client.execute_workflow(PROBER_WORKFLOW, id=workflow_id, task_queue=queue)
        return workflow_id


@asynccontextmanager
async def away_harness(harness: WorkerHarness) -> AsyncIterator[Away]:
    """Run a worker behind proxies on a task queue of its own, beside the harness's worker."""
    async with AsyncExitStack() as closing:
        proxies: dict[Dependency, FaultProxy] = {}
        changes: dict[str, object] = {"temporal_task_queue": f"away-{uuid.uuid4()}"}
        for dependency, names in _SETTINGS.items():
            urls = {name: str(getattr(harness.settings, name)) for name in names}
            upstream = urlsplit(next(iter(urls.values()))).port
            assert upstream is not None
            proxy = proxies[dependency] = FaultProxy(upstream)
            await proxy.start()
            closing.push_async_callback(proxy.close)
            changes |= {name: url.replace(f":{upstream}", f":{proxy.port}") for name, url in urls.items()}
        settings = harness.settings.model_copy(update=changes)
        worker = await closing.enter_async_context(
            wired_worker(settings, harness.client, runner=SandboxedWorkflowRunner())
        )
        await closing.enter_async_context(worker)
        yield Away(WorkerHarness(settings, harness.client, harness.sessions, harness.model_url), proxies)
