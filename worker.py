"""The worker: wires clients into activities, registers them with the workflows, runs until SIGTERM.

    python worker.py

Scale out by starting more of them; they share the task queue.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker, WorkflowRunner

from activities.context import ContextActivities
from activities.dispatch import DispatchActivities
from activities.gate import GateActivities, GatePolicy
from activities.lifecycle import LifecycleActivities
from activities.preview import PreviewActivities
from activities.question import QuestionActivities
from activities.reaper import ReaperActivities
from activities.restore import RestoreActivities
from activities.slots import SlotActivities
from activities.snapshot import SnapshotActivities
from activities.think import ThinkActivities
from activities.workspace import WorkspaceActivities
from clients.browser import Browser, find_chromium
from clients.build_workflows import BuildWorkflows
from clients.model import ModelClient
from clients.object_store import ObjectStore, store_config
from clients.sandbox import SandboxConfig, Sandboxes
from clients.search_attributes import register_search_attributes
from clients.temporal import connect_temporal, schedule_reaper
from db.models import PlanTier
from db.session import Sessions, make_engine, make_sessions
from domain.errors import CofounderError, Misconfigured, NeedsPerson, UnknownModel
from domain.pricing import price_of
from logs import configure_logs
from settings import Settings, load_settings
from workflows.build import BuildWorkflow
from workflows.preview import PreviewWorkflow
from workflows.reaper import ReaperWorkflow

log = structlog.get_logger(__name__)

WORKFLOWS: list[type] = [BuildWorkflow, PreviewWorkflow, ReaperWorkflow]

WORKFLOW_TASKS = 20
"""Workflow tasks that a worker takes at once. Python runs one at a time, and each times out ten seconds after it is
taken. With the SDK's default of 100, a mass wake would let the last ones time out, and they would run twice."""


@asynccontextmanager
async def wired_worker(
    settings: Settings, client: Client, browser: Browser | None = None, runner: WorkflowRunner | None = None
) -> AsyncIterator[Worker]:
    """Build a worker and check its clients. It does not run yet; the clients are closed at the end of the block.

    Args:
        settings: the worker's configuration.
        client: the Temporal client.
        browser: one that the caller shares and closes; None starts one for this worker.
        runner: runs workflow code; None runs it without the SDK's sandbox (ADR 0005).

    Raises:
        Misconfigured: a server is missing or wrong; the message says which one, and what to do.
    """
    async with AsyncExitStack() as closing:
        engine = make_engine(settings.database_url, pool_size=20)
        closing.push_async_callback(engine.dispose)
        sessions = make_sessions(engine)
        await _check_plans(sessions, settings)
        store = await closing.enter_async_context(ObjectStore(store_config(settings)))
        await store.check()
        model = ModelClient(
            _secret(settings.anthropic_api_key), settings.anthropic_base_url, settings.stream_idle_seconds
        )
        closing.push_async_callback(model.close)
        sandboxes = Sandboxes(sandbox_config(settings))
        closing.push_async_callback(sandboxes.close)
        await _check_sandboxes(sandboxes)
        if browser is None:
            browser = Browser(find_chromium(settings.chromium_path))
            closing.push_async_callback(browser.close)
        await register_search_attributes(client)
        await schedule_reaper(client, settings.temporal_task_queue, timedelta(seconds=settings.reaper_seconds))
        builds = BuildWorkflows(client, settings.temporal_task_queue)
        worker = Worker(
            client,
            task_queue=settings.temporal_task_queue,
            workflows=WORKFLOWS,
            workflow_runner=runner or UnsandboxedWorkflowRunner(),
            max_concurrent_workflow_tasks=WORKFLOW_TASKS,
            activities=_activities(settings, sessions, store, model, sandboxes, browser, builds),
            graceful_shutdown_timeout=timedelta(seconds=settings.graceful_shutdown_seconds),
        )
        yield worker


def _activities(
    settings: Settings,
    sessions: Sessions,
    store: ObjectStore,
    model: ModelClient,
    sandboxes: Sandboxes,
    browser: Browser,
    builds: BuildWorkflows,
) -> list[Callable[..., Any]]:
    context = ContextActivities(
        sessions,
        settings.model_prices,
        settings,
        fallback_model=settings.fallback_model,
        rehearsal_model=settings.rehearsal_model,
        egress_hosts=settings.reachable_hosts,
    )
    lifecycle = LifecycleActivities(sessions, builds)
    slots = SlotActivities(sessions)
    question = QuestionActivities(sessions)
    restore = RestoreActivities(sessions, sandboxes, store)
    think = ThinkActivities(
        sessions,
        model,
        store,
        settings.model_prices,
        settings.max_output_tokens,
        autonomous_agent=settings.autonomous_agent,
        secrets=settings.secret_values(),
    )
    dispatch = DispatchActivities(
        sessions,
        sandboxes,
        browser,
        store,
        bash_timeout_max_seconds=settings.tool_timeout_max_seconds,
        secrets=settings.secret_values(),
    )
    workspace = WorkspaceActivities(sessions, sandboxes, store)
    snapshot = SnapshotActivities(sessions, sandboxes, store, settings.snapshots_kept)
    evidence = GatePolicy(command_seconds=settings.gate_command_seconds, start_seconds=settings.gate_start_seconds)
    gate = GateActivities(sessions, sandboxes, store, browser, evidence)
    preview = PreviewActivities(
        sessions,
        sandboxes,
        store,
        command_seconds=settings.gate_command_seconds,
        start_seconds=settings.gate_start_seconds,
    )
    reaper = ReaperActivities(
        sessions,
        builds,
        sandboxes,
        store,
        spare_younger_than=timedelta(seconds=settings.reaper_spares_seconds),
        autonomous_agent=settings.autonomous_agent,
    )
    return [
        context.load_build_context,
        context.resolve_model,
        slots.claim_slot,
        question.ask_founder,
        restore.restore_workspace,
        restore.finish_restore,
        lifecycle.record_status,
        lifecycle.finish_build,
        lifecycle.run_post_build_hook,
        lifecycle.note_hook_failure,
        think.think,
        think.check_budget,
        dispatch.dispatch_tool,
        workspace.open_workspace,
        workspace.pause_workspace,
        workspace.resume_workspace,
        workspace.release_workspace,
        snapshot.snapshot_workspace,
        snapshot.note_snapshot_failure,
        gate.run_evidence_gate,
        preview.open_preview,
        preview.keep_preview,
        preview.record_preview,
        preview.close_preview,
        reaper.reap,
    ]


def sandbox_config(settings: Settings) -> SandboxConfig:
    """Return the configuration of the sandbox service.

    Raises:
        Misconfigured: the key is missing, or a setting is only for sandboxes on this machine.
    """
    key = _secret(settings.e2b_api_key)
    if key is None:
        raise Misconfigured(
            "There is no E2B_API_KEY. Set it to your E2B key, or run `cofounder local sandbox` and set what it prints."
        )
    settings.check_sandbox_service()
    return SandboxConfig(
        api_key=key,
        api_url=settings.e2b_api_url,
        sandbox_url=settings.e2b_sandbox_url,
        template=settings.e2b_template,
        ttl_seconds=settings.sandbox_ttl_seconds,
        egress_hosts=settings.reachable_hosts,
    )


def _secret(value: Any) -> str | None:
    return value.get_secret_value() if value is not None else None


async def _check_plans(sessions: Sessions, settings: Settings) -> None:
    """Check that every plan's default model has a price: a missing one is an error now, not a guess later."""
    try:
        async with sessions() as session:
            plans = (await session.scalars(select(PlanTier))).all()
    except (OSError, SQLAlchemyError) as error:
        raise Misconfigured(
            "The database does not answer, or has not been migrated. Check DATABASE_URL, then run `cofounder migrate`. "
            f"({str(error).splitlines()[0]})"
        ) from error
    for plan in plans:
        for role, model in plan.default_models.items():
            try:
                price_of(settings.model_prices, str(model))
            except UnknownModel as error:
                raise Misconfigured(f"The plan {plan.name} has no usable model for the role {role}. {error}") from error


async def _check_sandboxes(sandboxes: Sandboxes) -> None:
    """Check that the sandbox service answers.

    A rejected key is only logged: as with the model's key, builds keep their work and wait for an operator, and a
    worker with a valid key continues them.
    """
    try:
        await sandboxes.check()
    except NeedsPerson as error:
        log.error("builds will wait for an operator", reason=str(error))


async def main() -> None:
    """Run until SIGTERM or SIGINT. Tool calls keep running in their sandboxes; the next worker attaches to them."""
    settings = load_settings()
    configure_logs(settings.log_format, settings.log_level)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping.set)
    client = await connect_temporal()
    async with wired_worker(settings, client) as worker:
        running = asyncio.create_task(worker.run())
        stopped = asyncio.create_task(stopping.wait())
        log.info("worker started", task_queue=settings.temporal_task_queue, identity=client.identity)
        await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
        log.info("worker stopping")
        stopped.cancel()
        await worker.shutdown()
        await running


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
