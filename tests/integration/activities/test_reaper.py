"""The reaper acts on positive evidence only: neither "not found" nor "completed" ends anything."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update
from temporalio.client import WorkflowFailureError

from activities import reaped_store
from activities.reaped_store import StoreReaper
from clients.browser import Browser
from clients.build_workflows import BuildToStart, BuildWorkflows
from clients.sandbox import Role
from db import money
from db.deployment import count_started
from db.models import Build, DoomedObject, Preview, Snapshot, User
from db.reaper import read_alerts
from db.session import open_sessions
from db.snapshots import mark_deleted
from db.tombstones import doom, doomed_keys
from db.transaction import transaction
from domain.names import BUILD_WORKFLOW, REAPER_WORKFLOW, build_workflow_id, preview_workflow_id
from domain.status import Status
from local.stack import LocalStack
from services.generation import count_generation, trust_rows
from services.notifications import notify_budget_changed
from services.reap import sandboxes as reaped_sandboxes
from services.reap.builds import BuildReaper
from services.reap.look import Budget
from tests.harness.activities import ActivityHarness, open_activity_harness
from tests.harness.database_backup import back_up, put_back
from tests.harness.deployments import new_deployment
from tests.harness.many_builds import make_builds
from tests.harness.reaper import reap, reap_until
from tests.harness.worker import WorkerHarness, worker_harness


@pytest.fixture
async def harness(stack: LocalStack) -> AsyncIterator[ActivityHarness]:
    async with open_activity_harness(stack) as opened:
        yield opened


@pytest.fixture
async def worker(stack: LocalStack, browser: Browser) -> AsyncIterator[WorkerHarness]:
    """A worker whose reaper does not spare young sandboxes."""
    async with worker_harness(stack, browser, reaper_spares_seconds=0) as running:
        yield running


async def started_build(harness: ActivityHarness, *, closed: bool = False) -> uuid.UUID:
    """Insert a build whose workflow was started an hour ago according to its row."""
    build_id = uuid.UUID(await harness.build())
    async with transaction(harness.sessions) as tx:
        build = await tx.session.get_one(Build, build_id)
        build.started_at = datetime.now(UTC) - timedelta(hours=1)
        build.status = Status.FAILED if closed else Status.CODE
        build.closed_at = datetime.now(UTC) if closed else None
    return build_id


async def test_a_build_whose_workflow_is_not_found_stays_open(harness: ActivityHarness, worker: WorkerHarness) -> None:
    """A worker may have been started with a wrong namespace, in which it finds no build."""
    open_id, closed_id = await started_build(harness), await started_build(harness, closed=True)
    async with transaction(harness.sessions) as tx:
        tx.session.add(Preview(build_id=open_id, state="open", seq=3, url="http://there", sandbox_id="there"))
    sandboxes = [await harness.sandboxes.create(str(build_id), Role.WORKSPACE) for build_id in (open_id, closed_id)]
    await reap(worker, everything=True)
    async with transaction(harness.sessions) as tx:
        build, preview = await tx.session.get_one(Build, open_id), await tx.session.get_one(Preview, open_id)
    assert (build.status, build.closed_at) == (Status.CODE, None)
    assert (preview.state, preview.sandbox_id) == ("open", "there")
    assert {sandbox.id for sandbox in sandboxes} <= {each.id for each in await harness.sandboxes.list_all()}
    for sandbox in sandboxes:
        await harness.sandboxes.kill(sandbox.id)


async def test_a_sandbox_ends_if_its_preview_has_and_its_build_is_not_found(
    harness: ActivityHarness, worker: WorkerHarness
) -> None:
    """A preview may be opened long after its build, whose workflow is then past the namespace's retention."""
    build_id = await started_build(harness, closed=True)
    queue = worker.settings.temporal_task_queue
    await worker.client.execute_workflow(REAPER_WORKFLOW, id=preview_workflow_id(build_id), task_queue=queue)
    sandbox = await harness.sandboxes.create(str(build_id), Role.PREVIEW)

    async def has_ended() -> bool:
        return sandbox.id not in {each.id for each in await harness.sandboxes.list_all()}

    await reap_until(worker, has_ended, everything=True)


async def test_the_sandbox_of_a_push_ends_once_no_push_takes_that_long(
    harness: ActivityHarness, worker: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API that made it was killed. Whether its build is open, or its workflow known, does not matter."""
    builds = await started_build(harness), await started_build(harness, closed=True)
    made = {(await harness.sandboxes.create(str(build_id), Role.PUSH, offline=True)).id for build_id in builds}
    await reap(worker, everything=True)
    assert made <= {each.id for each in await harness.sandboxes.list_all()}, "a push may be running there"
    monkeypatch.setattr(reaped_sandboxes, "_PUSH_OVERDUE", timedelta(0))
    await reap(worker, everything=True)
    assert not made & {each.id for each in await harness.sandboxes.list_all()}


async def test_a_build_whose_workflow_was_cancelled_is_closed_as_cancelled(
    harness: ActivityHarness, worker: WorkerHarness
) -> None:
    build_id, queue = await started_build(harness), worker.settings.temporal_task_queue
    handle = await worker.client.start_workflow(
        REAPER_WORKFLOW, id=build_workflow_id(build_id), task_queue=queue, start_delay=timedelta(hours=1)
    )
    await handle.cancel()  # before it has begun, so it does nothing
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    await reap(worker, everything=True)
    async with transaction(harness.sessions) as tx:
        build = await tx.session.get_one(Build, build_id)
    assert (build.status, build.closed_at is not None) == (Status.CANCELLED, True)


async def test_a_build_whose_workflow_completed_is_not_failed(harness: ActivityHarness, worker: WorkerHarness) -> None:
    """After the database was restored from a backup, the row of a ready build may say that it is still open."""
    build_id = await started_build(harness)
    queue = worker.settings.temporal_task_queue
    await worker.client.execute_workflow(REAPER_WORKFLOW, id=build_workflow_id(build_id), task_queue=queue)
    await reap(worker, everything=True)
    async with transaction(harness.sessions) as tx:
        build = await tx.session.get_one(Build, build_id)
    assert (build.status, build.closed_at) == (Status.CODE, None)


async def test_a_change_of_budget_is_repeated_until_the_workflow_received_it(
    harness: ActivityHarness, worker: WorkerHarness
) -> None:
    """In another namespace no workflow is found, which delivers nothing."""
    build_id = await started_build(harness)
    async with transaction(harness.sessions) as tx:
        build = await tx.session.get_one(Build, build_id)
        build.status = Status.SLEEPING
        await money.top_up(tx, build.user_id, 1, datetime.now(UTC).date())
    assert await notify_budget_changed(harness.sessions, worker.builds, build.user_id) == []
    assert await notified_at(harness, build_id) is None

    workflows = BuildWorkflows(worker.client, f"no-worker-{uuid.uuid4()}")
    await workflows.start(BuildToStart(build_id, build.user_id, build.project_id, "bootstrapper"))
    async with transaction(harness.sessions) as tx:
        changed_at = datetime.now(UTC) - timedelta(minutes=1)  # a younger change is still the API's to announce
        (await tx.session.get_one(User, build.user_id)).money_changed_at = changed_at
        (await tx.session.get_one(Build, build_id)).created_at = changed_at - timedelta(minutes=1)
    await reap(worker, everything=True)
    assert await notified_at(harness, build_id) == changed_at
    await worker.client.get_workflow_handle(build_workflow_id(build_id)).terminate()


async def notified_at(harness: ActivityHarness, build_id: uuid.UUID) -> datetime | None:
    async with transaction(harness.sessions) as tx:
        return (await tx.session.get_one(Build, build_id)).nudged_at


async def test_no_object_is_deleted_because_a_row_is_missing(harness: ActivityHarness, worker: WorkerHarness) -> None:
    """After the database was restored from a backup, newer snapshots have objects but no rows."""
    build = await harness.build()
    without_rows = {f"snapshots/{build}/000007-lost.tar.gz", f"snapshots/{build}/000007-lost.manifest.jsonl"}
    for key in without_rows:
        await harness.store.put(key, b"work of an hour")
    sandbox = await harness.open(build)
    await harness.take(build, sandbox, 8)
    assert without_rows <= set(await harness.store.keys(f"snapshots/{build}/"))
    async with transaction(harness.sessions) as tx:
        row = await tx.session.get_one(Build, uuid.UUID(build))
        row.status, row.closed_at = Status.FAILED, datetime.now(UTC)
    await reap(worker, everything=True)
    assert without_rows <= set(await harness.store.keys(f"snapshots/{build}/"))
    await harness.kill_all(build)


async def test_no_build_is_closed_if_too_many_would_be(stack: LocalStack) -> None:
    settings, client = await new_deployment(stack)
    async with open_sessions(settings.database_url) as sessions:
        many, looks = (
            await make_builds(sessions, client, 8),
            BuildReaper(sessions, BuildWorkflows(client, "no-workers")),
        )
        await looks.look()
        await many.end(6)
        assert (await looks.look()).closed == 0
        async with transaction(sessions) as tx:
            assert "6 of 8 open builds would be closed at once" in " ".join(await read_alerts(tx))
            assert await count_started(tx) == 8
            one_less = await tx.session.get_one(Build, many.ids[0])
            one_less.status, one_less.closed_at = Status.FAILED, datetime.now(UTC)
        assert (await looks.look()).closed == 5
        async with transaction(sessions) as tx:
            assert await read_alerts(tx) == []


async def test_a_build_that_was_reset_is_not_closed(stack: LocalStack) -> None:
    """A reset terminates the run before it, so Temporal lists the build as ended although a later run is open."""
    settings, client = await new_deployment(stack)
    async with open_sessions(settings.database_url) as sessions:
        many, looks = (
            await make_builds(sessions, client, 1),
            BuildReaper(sessions, BuildWorkflows(client, "no-workers")),
        )
        await looks.look()
        await many.end(1)
        workflow_id = build_workflow_id(many.ids[0])
        await client.start_workflow(BUILD_WORKFLOW, id=workflow_id, task_queue="no-workers")
        assert (await looks.look()).closed == 0


async def test_an_object_goes_when_its_tombstone_is_due_and_no_row_names_it(
    harness: ActivityHarness, worker: WorkerHarness
) -> None:
    build = await harness.build()
    sandbox = await harness.open(build)
    await harness.take(build, sandbox, 1)
    row = (await harness.rows(build))[1]
    due, early = f"snapshots/{build}/000002-due.tar.gz", f"snapshots/{build}/000002-early.tar.gz"
    for key in (due, early):
        await harness.store.put(key, b"old")
    async with transaction(harness.sessions) as tx:
        await doom(tx, uuid.UUID(build), [row.archive_key, due, early], "a test")
        past = update(DoomedObject).where(DoomedObject.key.in_([row.archive_key, due]))
        await tx.session.execute(past.values(due_at=datetime.now(UTC)))
    await reap(worker)
    assert await harness.store.size(due) is None
    assert await harness.store.size(early) is not None
    assert await harness.store.size(row.archive_key) == row.archive_bytes
    async with transaction(harness.sessions) as tx:
        assert await doomed_keys(tx, uuid.UUID(build)) == {early}
    await harness.kill_all(build)


async def test_what_lost_its_row_is_swept_up_once_it_is_a_day_old(
    harness: ActivityHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When its build ends it is too young: the database may have been put back, and `recover` may bring the row."""
    build = uuid.UUID(await harness.build())
    key = f"snapshots/{build}/000001-lost.tar.gz"
    await harness.store.put(key, b"lost")

    async def is_doomed(ended: timedelta) -> bool:
        async with transaction(harness.sessions) as tx:
            row = await tx.session.get_one(Build, build)
            row.status, row.closed_at = Status.FAILED, datetime.now(UTC) - ended
        await StoreReaper(harness.sessions, harness.store).look(Budget())
        async with transaction(harness.sessions) as tx:
            return key in await doomed_keys(tx, build)

    assert not await is_doomed(timedelta(minutes=1))
    assert not await is_doomed(timedelta(hours=1))
    monkeypatch.setattr(reaped_store, "_OLD", timedelta(0))
    assert await is_doomed(timedelta(hours=26))


async def test_a_row_that_names_a_key_again_removes_its_tombstone(harness: ActivityHarness) -> None:
    build = await harness.build()
    sandbox = await harness.open(build)
    await harness.take(build, sandbox, 1)
    row = (await harness.rows(build))[1]
    async with transaction(harness.sessions) as tx:
        await mark_deleted(tx, [row.id])
        assert await doomed_keys(tx, uuid.UUID(build)) == {row.archive_key, row.manifest_key}
    async with transaction(harness.sessions) as tx:
        (await tx.session.get_one(Snapshot, row.id)).state = "stored"
    async with transaction(harness.sessions) as tx:
        assert await doomed_keys(tx, uuid.UUID(build)) == set()
    await harness.kill_all(build)


async def test_the_rows_are_trusted_unless_the_store_is_ahead(harness: ActivityHarness, stack: LocalStack) -> None:
    settings, _ = await new_deployment(stack)
    async with open_sessions(settings.database_url) as sessions:
        assert await count_generation(sessions, harness.store)
        backup = await back_up(settings.database_url)
        assert await count_generation(sessions, harness.store)
        await put_back(settings.database_url, backup)
        assert not await count_generation(sessions, harness.store)
        assert not await count_generation(sessions, harness.store)
        await trust_rows(sessions, harness.store)
        assert await count_generation(sessions, harness.store)
