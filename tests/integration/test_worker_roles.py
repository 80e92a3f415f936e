"""Workers of one role each: a build goes through all of them, and waits for the one that is missing."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime

import pytest

from checks.check import CheckContext
from checks.roles import check_roles
from clients.browser import Browser
from clients.fleet_workflows import FleetWorkflows
from clients.sandbox import Sandboxes, sandbox_config
from db.session import open_sessions
from domain.status import Status
from domain.worker_roles import WorkerRole, queue_of
from local.stack import LocalStack
from services.presence import Presence
from tests.harness.deployments import new_deployment
from tests.harness.scripts import bash, steps
from tests.harness.wait import wait_until
from tests.harness.worker import WorkerHarness
from tests.harness.worker_process import RunningWorker, worker_process
from tests.workflows.scenarios import LOOKED_AT, queues_of_work
from worker import wired_worker


@asynccontextmanager
async def _worker(
    harness: WorkerHarness, browser: Browser, role: WorkerRole, **settings_of_it: object
) -> AsyncIterator[None]:
    """Run a worker of this role in this process, and announce it."""
    settings = harness.settings.model_copy(update={"worker_roles": [role], **settings_of_it})
    keeping = asyncio.create_task(Presence(harness.sessions, "worker", 2, [role]).keep(lambda _: None))
    async with wired_worker(settings, harness.client, browser) as worker, worker:
        yield
    keeping.cancel()
    await asyncio.wait([keeping])


@asynccontextmanager
async def _deployment(stack: LocalStack) -> AsyncIterator[tuple[WorkerHarness, CheckContext]]:
    """A deployment with separate roles, and without a worker."""
    settings, client = await new_deployment(stack, separate_roles="archive,browser")
    context = CheckContext(settings, None)
    assert settings.anthropic_base_url is not None
    async with open_sessions(settings.database_url) as sessions:
        yield WorkerHarness(settings, client, sessions, settings.anthropic_base_url), context


async def test_a_build_waits_for_the_role_that_no_worker_has_and_goes_on(stack: LocalStack, browser: Browser) -> None:
    async with _deployment(stack) as (harness, context):
        browser_queue = queue_of(harness.settings.temporal_task_queue, WorkerRole.BROWSER)
        async with (
            _worker(harness, browser, WorkerRole.BUILD),
            _worker(harness, browser, WorkerRole.ARCHIVE),
        ):
            build_id = await harness.start(script=LOOKED_AT)
            fleet = FleetWorkflows(harness.client)

            async def has_nowhere_to_go() -> bool:
                view = await fleet.describe(build_id)
                return view is not None and any(each.task_queue == browser_queue for each in view.pending)

            await wait_until(has_nowhere_to_go)
            view = await fleet.describe(build_id)
            assert view is not None
            [waits] = view.pending
            assert waits.name == "dispatch_tool"
            assert waits.waits_since is not None
            assert waits.waits_since <= datetime.now(UTC)
            missing = await check_roles(context)
            assert missing.state == "fail"
            assert browser_queue in missing.detail
            assert "WORKER_ROLES=browser" in (missing.remedy or "")
            async with _worker(harness, browser, WorkerRole.BROWSER):
                await harness.until_event(build_id, "tool_done", turn=2, count=2)

                async def is_well() -> bool:
                    return (await check_roles(context)).detail == "build: 1, archive: 1, browser: 1"

                await wait_until(is_well)
                await harness.builds.cancel(build_id)
                assert (await harness.finished(build_id)).status == Status.CANCELLED
        assert (await queues_of_work(harness, build_id))["dispatch_tool"] == {"build", "browser"}


async def test_a_sandbox_is_opened_before_one_that_rests_is_archived(stack: LocalStack, browser: Browser) -> None:
    held = steps([bash("true")], [bash("until [ -e ../go ]; do sleep 0.1; done", 300)])
    async with _deployment(stack) as (harness, _), _worker(harness, browser, WorkerRole.BUILD):
        async with _worker(harness, browser, WorkerRole.ARCHIVE):
            rests = await harness.start(script=held)
            await harness.until_event(rests, "tool_started", turn=2)
        # Its next call ends for a reason that is not known. It waits for its founder, and its snapshot is queued first.
        await harness.rehearse("faults", {"kind": "unknown_stop_reason", "times": 1})
        sandboxes = Sandboxes(sandbox_config(harness.settings))
        sandbox_id = (await harness.row(rests)).sandbox_id
        assert sandbox_id is not None
        await (await sandboxes.connect(sandbox_id)).write("/home/user/go", "")
        await sandboxes.close()
        await _is_queued(harness, rests, "snapshot_workspace")
        begins = await harness.start(script=held)
        await _is_queued(harness, begins, "open_workspace")
        async with _worker(harness, browser, WorkerRole.ARCHIVE, max_archive_activities=1):
            await harness.until_event(begins, "turn_started")
            await harness.until_event(rests, "snapshot_stored")
            opened = await _start_of(harness, begins, "open_workspace")
            assert opened < await _start_of(harness, rests, "snapshot_workspace")
            for each in (rests, begins):
                await harness.builds.cancel(each)
                assert (await harness.finished(each)).status == Status.CANCELLED


async def _is_queued(harness: WorkerHarness, build_id: uuid.UUID, name: str) -> None:
    """Wait until the build waits for a worker that takes this activity."""
    fleet = FleetWorkflows(harness.client)

    async def is_queued() -> bool:
        view = await fleet.describe(build_id)
        return view is not None and any(each.name == name and each.waits_since for each in view.pending)

    await wait_until(is_queued)


async def _start_of(harness: WorkerHarness, build_id: uuid.UUID, name: str) -> datetime:
    """When a worker began with the build's only activity of this name. The history says it once the activity is done,
    which is after it has told the feed."""
    times: list[datetime] = []

    async def has_ended() -> bool:
        events = (await harness.handle(build_id).fetch_history()).events
        ids = {
            each.event_id for each in events if each.activity_task_scheduled_event_attributes.activity_type.name == name
        }
        times.extend(
            each.event_time.ToDatetime()
            for each in events
            if each.activity_task_started_event_attributes.scheduled_event_id in ids
        )
        return bool(times)

    await wait_until(has_ended)
    return times[0]


@pytest.mark.thorough
async def test_three_processes_of_one_role_each_make_a_build(stack: LocalStack) -> None:
    async with _deployment(stack) as (harness, context):

        def process_of(role: str) -> AbstractAsyncContextManager[RunningWorker]:
            return worker_process(
                harness,
                stack,
                DATABASE_URL=harness.settings.database_url,
                TEMPORAL_NAMESPACE=harness.client.namespace,
                SEPARATE_ROLES="archive,browser",
                WORKER_ROLES=role,
            )

        async with process_of("build") as first, process_of("archive") as second, process_of("browser") as third:
            for process in (first, second, third):
                await process.until("worker started")
            build_id = await harness.start(script=LOOKED_AT)
            row = await harness.finished(build_id)
            assert row.status == Status.READY, row.reason
            assert (await check_roles(context)).state == "ok"
            assert await third.stop() == 0
            assert (await check_roles(context)).state == "fail"
