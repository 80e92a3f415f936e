"""What operators do to a deployment destroys no build: a wrong namespace, a database put back, a paused reaper."""

import time
import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from activities.reaped_store import StoreReaper
from clients.browser import Browser
from clients.build_workflows import BuildWorkflows
from clients.object_store import ObjectStore, store_config
from clients.sandbox import Sandboxes, sandbox_config
from clients.schedules import schedule_reaper
from db.models import Build, DoomedObject, Snapshot
from db.session import open_sessions
from db.snapshots import current_snapshot
from db.tombstones import GRACE
from db.transaction import transaction
from domain.errors import WrongNamespace
from domain.names import REAPER_ID
from domain.status import Status
from local.stack import LocalStack
from services.deployment import check_deployment
from services.reap.builds import BuildReaper
from services.reap.look import Budget
from services.reap.nudges import Nudges
from services.reap.sandboxes import SandboxReaper
from tests.harness.database_backup import back_up, put_back
from tests.harness.deployments import client_in, deployment, new_deployment
from tests.harness.many_builds import make_builds
from tests.harness.namespaces import new_namespace
from tests.harness.reaper import forget_cursors, reap, reap_until
from tests.harness.scripts import PRODUCT, bash, hold, steps
from tests.harness.worker import WorkerHarness
from tests.workflows.scenarios import release_command
from worker import wired_worker

Figure = Callable[[str], None]

HELD = steps([bash(PRODUCT)], [hold()])
"""A build that has written its product and waits in a command."""


@pytest.mark.fast
async def test_wrong_namespace(stack: LocalStack, browser: Browser, figure: Figure) -> None:
    """D1: start a worker with the right database and another namespace, and force its reaper to look."""
    async with deployment(stack, browser) as ours:
        builds = [await ours.start(script=HELD) for _ in range(3)]
        for build_id in builds:
            await ours.until_event(build_id, "tool_started", turn=2)
        elsewhere = await client_in(stack, await new_namespace(stack))
        with pytest.raises(WrongNamespace, match="belongs to Temporal's namespace"):
            async with wired_worker(ours.settings, elsewhere, browser):
                pass
        await _make_old(ours, builds)
        theirs = BuildWorkflows(elsewhere, "no-workers")
        sandboxes = Sandboxes(sandbox_config(ours.settings))
        await forget_cursors(ours.sessions)
        forced = await BuildReaper(ours.sessions, theirs).look()
        ended = await SandboxReaper(ours.sessions, theirs, sandboxes, timedelta(0)).look(Budget())
        assert (forced.closed, forced.previews, ended) == (0, 0, 0)
        rows = [await ours.row(build_id) for build_id in builds]
        assert all(row.closed_at is None and row.lost_at is not None for row in rows), "marked, and nothing else"
        await reap(ours, everything=True)
        found = [(await ours.row(build_id)).lost_at is None for build_id in builds]
        assert all(found), "they are found again"
        for build_id in builds:
            await release_command(ours, build_id)
        assert [(await ours.finished(build_id)).status for build_id in builds] == [Status.READY] * 3
        await sandboxes.close()
    figure("refused; 0 of 3 builds closed, 0 sandboxes ended, 3 ready")


async def _make_old(harness: WorkerHarness, builds: list[uuid.UUID]) -> None:
    """Let the rows say that the workflows were started an hour ago: younger ones may not be listed yet."""
    async with transaction(harness.sessions) as tx:
        started = func.now() - timedelta(hours=1)
        await tx.session.execute(update(Build).where(Build.id.in_(builds)).values(started_at=started))


async def test_database_put_back_after_a_build_is_ready(stack: LocalStack, browser: Browser, figure: Figure) -> None:
    """D2: put the database back to a moment at which builds that are ready now were open."""
    async with deployment(stack, browser) as ours, ObjectStore(store_config(ours.settings)) as store:
        builds = [await ours.start(script=HELD) for _ in range(2)]
        for build_id in builds:
            await ours.until_event(build_id, "tool_started", turn=2)
        await _make_old(ours, builds)
        backup = await back_up(ours.settings.database_url)
        for build_id in builds:
            await release_command(ours, build_id)
        ready = [await ours.finished(build_id) for build_id in builds]
        objects = [set(await store.keys(f"snapshots/{build_id}/")) for build_id in builds]
        assert all(row.status == Status.READY for row in ready)
        await put_back(ours.settings.database_url, backup)
        assert all([(await ours.row(build_id)).closed_at is None for build_id in builds])

        async def are_closed() -> bool:
            return all([(await ours.row(build_id)).closed_at is not None for build_id in builds])

        await reap_until(ours, are_closed, everything=True)
        for before, build_id, kept in zip(ready, builds, objects, strict=True):
            row = await ours.row(build_id)
            assert (row.status, row.build_version) == (Status.READY, before.build_version), row.reason
            assert (row.preview_url, row.sandbox_id) == (before.preview_url, before.sandbox_id)
            assert row.phases_completed == before.phases_completed
            assert set(await store.keys(f"snapshots/{build_id}/")) == kept
    figure(f"2 of 2 ready again with their versions, {sum(map(len, objects))} of their objects kept")


async def test_database_put_back_after_a_rotation(stack: LocalStack, browser: Browser, figure: Figure) -> None:
    """D2: put the database back to rows that name snapshots which were rotated since, and let a week pass."""
    async with deployment(stack, browser) as ours, ObjectStore(store_config(ours.settings)) as store:
        commit = "git add -A; git -c user.name=c -c user.email=c@example.org commit -qm"
        phases = [bash(f"echo {number} >file-{number}; {commit} {number}") for number in range(9)]
        build_id = await ours.start(script=steps([bash(PRODUCT)], [hold()], *[[each] for each in phases], [hold()]))
        await ours.until_event(build_id, "tool_started", turn=2)
        await reap(ours)
        backup = await back_up(ours.settings.database_url)
        async with ours.session() as tx:
            current = await current_snapshot(tx, build_id)
        assert current is not None
        await release_command(ours, build_id)
        await ours.until_event(build_id, "tool_started", turn=12)
        async with ours.session() as tx:
            states = list(await tx.session.scalars(select(Snapshot.state).where(Snapshot.build_id == build_id)))
        assert states.count("stored") <= 5 < len(states)
        objects = set(await store.keys(f"snapshots/{build_id}/"))
        await reap(ours)
        await put_back(ours.settings.database_url, backup)
        async with transaction(ours.sessions) as tx:
            await tx.session.execute(update(DoomedObject).values(due_at=DoomedObject.due_at - GRACE))
        await reap(ours)
        assert set(await store.keys(f"snapshots/{build_id}/")) == objects, "nothing is deleted until it is recovered"
        assert await store.size(current.archive_key) == current.archive_bytes, "what the rows name is there"
        await ours.handle(build_id).terminate("the drill is over")
    figure(f"{len(states)} snapshots taken, {len(objects)} objects there, the one that the rows name too")


@pytest.mark.fast
async def test_paused_reaper(stack: LocalStack, browser: Browser, figure: Figure) -> None:
    """D7: pause the reaper's schedule, then start a worker."""
    async with deployment(stack, browser) as ours:
        handle = ours.client.get_schedule_handle(REAPER_ID)
        await handle.pause(note="an incident")
        await schedule_reaper(ours.client, ours.settings.temporal_task_queue, timedelta(seconds=61))
        state = (await handle.describe()).schedule.state
        assert (state.paused, state.note) == (True, "an incident")
    figure("still paused, with its note")


MANY = 10_000


async def test_ten_thousand_builds(stack: LocalStack, figure: Figure) -> None:
    """D14: look at 10,000 open builds, of which 20 have ended. `python -m bench reaper` measures it alone."""
    settings, client = await new_deployment(stack)
    async with open_sessions(settings.database_url) as sessions, ObjectStore(store_config(settings)) as store:
        many = await make_builds(sessions, client, MANY)
        workflows = BuildWorkflows(client, "no-workers")
        sandboxes = Sandboxes(sandbox_config(settings))

        async def look() -> tuple[int, float]:
            began = time.perf_counter()
            await check_deployment(sessions, workflows)
            closed = (await BuildReaper(sessions, workflows).look()).closed
            await SandboxReaper(sessions, workflows, sandboxes, timedelta(hours=1)).look(Budget())
            await StoreReaper(sessions, store).look(Budget())
            await Nudges(sessions, workflows).look(Budget())
            return closed, time.perf_counter() - began

        all_rows = await look()
        await many.end(20)
        what_ended = await look()
        await sandboxes.close()
    figure(f"all rows {all_rows[1]:.1f} s, what ended {what_ended[1]:.1f} s, {what_ended[0]} closed")
    assert (all_rows[0], what_ended[0]) == (0, 20)
