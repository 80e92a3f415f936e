"""The worker: opens the clients, registers activities and workflows, runs until SIGTERM.

`python worker.py`. Scale out by starting more of them; they share the task queues of their roles.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Self, TypedDict

import structlog
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.runtime import Runtime, TelemetryConfig
from temporalio.worker import Interceptor, UnsandboxedWorkflowRunner, Worker, WorkerDeploymentConfig, WorkflowRunner

from activities.registry import all_activities
from activities.runtime.shutdown import Shutdown
from clients.browser import Browser
from clients.cancellation import cancel_and_wait
from clients.schedules import schedule_prober, schedule_reaper
from clients.search_attributes import register_search_attributes
from clients.temporal import connect_temporal
from clients.worker_clients import WorkerClients, open_worker_clients
from db.session import WORKER_POOL, Sessions, open_sessions, pool_of
from domain.errors import CofounderError, WrongVersion
from domain.worker_roles import WorkerRole, needed_roles, polled_roles, queue_of
from logs import configure_logs
from observing import traces
from observing.activities import ActivityLogs, ActivityMetrics
from observing.activity_traces import ActivityTraces
from observing.fleet import FleetGauges
from observing.health import SignOfLife, health_port
from observing.model_calls import observed
from observing.pool import show_pool
from observing.sdk_metrics import SdkMetrics, forwarded_logs
from services.deployment import check_deployment
from services.plans import check_plans
from services.presence import SILENT_SECONDS, Presence, check_formats
from services.webhooks import Outbox
from settings import Settings, load_settings
from workflows.build import BuildWorkflow
from workflows.bulk import BulkWorkflow
from workflows.erasure import ErasureWorkflow
from workflows.export import ExportWorkflow
from workflows.preview import PreviewWorkflow
from workflows.prober import ProberWorkflow
from workflows.reaper import ReaperWorkflow
from workflows.webhook import WebhookWorkflow

log = structlog.get_logger(__name__)

WORKFLOWS: list[type] = [
    BuildWorkflow,
    PreviewWorkflow,
    ReaperWorkflow,
    ProberWorkflow,
    WebhookWorkflow,
    BulkWorkflow,
    ErasureWorkflow,
    ExportWorkflow,
]

WORKFLOW_TASKS = 20
"""Workflow tasks that a worker takes at once. Python runs one at a time, and each times out ten seconds after it is
taken. With the SDK's default of 100, a mass wake would let the last ones time out, and they would run twice."""

_NEW_OBJECTS = 50_000
"""New objects after which Python looks for cycles among them. At its default of 700, that is a fifteenth of the CPU of
a worker with many builds."""

_OLDER_OBJECTS = (5, 2)
"""After how many such looks Python looks among the objects that outlived one, and after how many of those among all.
With its default of ten for both, a worker could hold six million objects of workflows that have left its cache."""

_SEPARATE_POLLS = 2
"""Requests with which a worker asks at once for activities of a separate role, which are few and long."""

_AT_ONCE_SECONDS = 5.0
"""After a second signal, the worker books what its calls have cost within this many seconds, or ends without that."""


class RoleWorkers:
    """A worker for each task queue that this process polls. They start, run and stop together."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers
        self._running = AsyncExitStack()

    @property
    def is_running(self) -> bool:
        """Whether all of them take tasks."""
        return all(worker.is_running for worker in self._workers)

    async def run(self) -> None:
        """Run until they are stopped, or one of them fails, which stops the others."""
        try:
            await asyncio.gather(*(worker.run() for worker in self._workers))
        finally:
            await self.shutdown()

    async def shutdown(self) -> None:
        """Stop them all, and wait until they have stopped."""
        await asyncio.gather(*(worker.shutdown() for worker in self._workers))

    async def __aenter__(self) -> Self:
        for worker in self._workers:
            await self._running.enter_async_context(worker)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.shutdown()
        await self._running.aclose()


@asynccontextmanager
async def wired_worker(
    settings: Settings,
    client: Client,
    browser: Browser | None = None,
    runner: WorkflowRunner | None = None,
    shutdown: Shutdown | None = None,
    sdk_metrics: SdkMetrics | None = None,
    sign_of_life: SignOfLife | None = None,
) -> AsyncIterator[RoleWorkers]:
    """Build a worker and check its clients. It does not run yet; the clients are closed at the end of the block.

    Args:
        browser: one that the caller shares and closes; None starts one for this worker.
        runner: runs workflow code; None runs it without the SDK's sandbox (ADR 0005).
        shutdown: of the caller, who can then end a stopping worker at once.
        sdk_metrics: of the client's runtime, shown with the worker's own.
        sign_of_life: of the caller's task that announces the worker.

    Raises:
        Misconfigured: a server is missing or wrong; the message says which one, and what to do.
    """
    async with open_sessions(settings.database_url, pool_of(settings.database_connections, WORKER_POOL)) as sessions:
        await check_formats(sessions)
        await check_plans(sessions, settings.model_prices)
        async with open_worker_clients(settings, client, browser) as clients:
            await check_deployment(sessions, clients.workflows)
            await register_search_attributes(client)
            await schedule_reaper(client, settings.temporal_task_queue, timedelta(seconds=settings.reaper_seconds))
            await schedule_prober(client, settings.temporal_task_queue, timedelta(seconds=settings.prober_seconds))
            is_measured = settings.metrics_address is not None
            if is_measured or traces.are_wanted():
                clients = replace(clients, providers=observed(clients.providers))
            outbox = asyncio.create_task(Outbox(sessions, clients.workflows).keep())
            activities = all_activities(settings, sessions, clients)
            interceptors = [*_observers(is_measured), shutdown or Shutdown()]
            worker = RoleWorkers(
                [
                    Worker(
                        client,
                        task_queue=queue_of(settings.temporal_task_queue, role),
                        workflow_runner=runner or UnsandboxedWorkflowRunner(),
                        activities=activities,
                        interceptors=interceptors,
                        deployment_config=_deployment_of(settings),
                        graceful_shutdown_timeout=timedelta(seconds=settings.graceful_shutdown_seconds),
                        **_options_of(role, settings),
                    )
                    for role in polled_roles(settings.worker_roles, settings.separate_roles)
                ]
            )
            try:
                async with _health_port(settings, sessions, clients, worker, sdk_metrics, sign_of_life):
                    yield worker
            finally:
                await cancel_and_wait(outbox)


class _RoleOptions(TypedDict, total=False):
    workflows: Sequence[type]
    max_cached_workflows: int
    max_concurrent_workflow_tasks: int
    max_concurrent_activities: int
    max_concurrent_activity_task_polls: int


def _options_of(role: WorkerRole, settings: Settings) -> _RoleOptions:
    """What a worker takes of the role's work. Every activity may be on every queue: the build decides that."""
    if role is WorkerRole.ARCHIVE:
        slots = settings.max_archive_activities
    elif role is WorkerRole.BROWSER:
        slots = settings.max_browser_activities
    else:
        return {
            "workflows": WORKFLOWS,
            "max_cached_workflows": settings.max_cached_workflows,
            "max_concurrent_workflow_tasks": WORKFLOW_TASKS,
            "max_concurrent_activities": settings.max_activities,
        }
    return {"max_concurrent_activities": slots, "max_concurrent_activity_task_polls": _SEPARATE_POLLS}


def _observers(is_measured: bool) -> list[Interceptor]:
    observers: list[Interceptor] = [ActivityLogs()]
    observers += [ActivityMetrics()] if is_measured else []
    observers += [ActivityTraces()] if traces.are_wanted() else []
    return observers


def _deployment_of(settings: Settings) -> WorkerDeploymentConfig | None:
    """The worker's version; None if workers have none.

    Each run of a workflow keeps to the version that it began with. This is not part of the workflows' definitions: a
    worker without a version must not say it.
    """
    if settings.temporal_worker_build_id is None:
        return None
    version = WorkerDeploymentVersion(settings.temporal_deployment_name, settings.temporal_worker_build_id)
    return WorkerDeploymentConfig(version, True, default_versioning_behavior=VersioningBehavior.PINNED)


@asynccontextmanager
async def _health_port(
    settings: Settings,
    sessions: Sessions,
    clients: WorkerClients,
    worker: RoleWorkers,
    sdk_metrics: SdkMetrics | None,
    sign_of_life: SignOfLife | None,
) -> AsyncIterator[None]:
    """Show how the worker is while the block runs, if METRICS_ADDRESS is set."""
    gauges = FleetGauges(
        sessions, clients.workflows.is_reachable, settings.sandbox_quota, needed_roles(settings.separate_roles)
    )

    async def prepare() -> bytes:
        await gauges.refresh()
        show_pool(sessions)
        return b"" if sdk_metrics is None else await sdk_metrics.read()

    def ready() -> str | None:
        return None if worker.is_running else "The worker takes no tasks: it starts or stops."

    def live() -> str | None:
        return None if sign_of_life is None else sign_of_life.problem()

    try:
        async with health_port(settings.metrics_address, live=live, ready=ready, prepare=prepare):
            yield
    finally:
        await gauges.close()


def _listen_for_signals(shutdown: Shutdown) -> asyncio.Event:
    """An event that the first SIGTERM or SIGINT sets. The second one ends what still runs, and soon the process."""
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            log.warning("worker stopping at once")
            shutdown.end_now()
            loop.call_later(_AT_ONCE_SECONDS, os._exit, 1)
        stopping.set()

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop)
    return stopping


async def main() -> None:
    """Run until SIGTERM or SIGINT, then let model calls end, which are paid for.

    Tool calls keep running in their sandboxes; the next worker attaches to them.
    """
    gc.collect()
    gc.freeze()  # what is imported stays until the end
    gc.set_threshold(_NEW_OBJECTS, *_OLDER_OBJECTS)
    settings = load_settings()
    configure_logs(settings.log_format, settings.log_level)
    shutdown = Shutdown()
    stopping = _listen_for_signals(shutdown)
    sdk_metrics = None if settings.metrics_address is None else SdkMetrics.open()
    sign_of_life = SignOfLife("announced itself", SILENT_SECONDS)
    runtime = sdk_metrics.runtime if sdk_metrics else Runtime(telemetry=TelemetryConfig(logging=forwarded_logs()))
    client = await connect_temporal(runtime=runtime)
    async with (
        traces.exported_traces("cofounder-worker"),
        wired_worker(settings, client, shutdown=shutdown, sdk_metrics=sdk_metrics, sign_of_life=sign_of_life) as worker,
        _present(settings, stopping, sign_of_life) as problems,
    ):
        running = asyncio.create_task(worker.run())
        stopped = asyncio.create_task(stopping.wait())
        log.info("worker started", task_queue=settings.temporal_task_queue, identity=client.identity)
        await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
        log.info("worker stopping", at_most_seconds=settings.graceful_shutdown_seconds)
        stopped.cancel()
        await worker.shutdown()
        await running
    if problems:
        raise problems[0]


@asynccontextmanager
async def _present(
    settings: Settings, stopping: asyncio.Event, sign_of_life: SignOfLife
) -> AsyncIterator[list[WrongVersion]]:
    """Announce this worker. If it can't read what is stored any more, stop it; the problem is then in the list."""
    problems: list[WrongVersion] = []

    def stop(problem: WrongVersion) -> None:
        problems.append(problem)
        stopping.set()

    async with open_sessions(settings.database_url, pool_size=1) as sessions:
        pool = 2 * pool_of(settings.database_connections, WORKER_POOL)
        roles = polled_roles(settings.worker_roles, settings.separate_roles)
        keeping = asyncio.create_task(Presence(sessions, "worker", pool, roles).keep(stop, sign_of_life.note))
        try:
            yield problems
        finally:
            await cancel_and_wait(keeping)


if __name__ == "__main__":
    exit_code = 0
    try:
        asyncio.run(main())
    except CofounderError as problem:
        sys.stderr.write(f"worker: {problem}\n")
        exit_code = 1
    # Skip the interpreter's shutdown: the SDKs' native threads sometimes abort it (sdk-python#300).
    logging.shutdown()
    sys.stderr.flush()
    os._exit(exit_code)
