"""`cofounder recover`, stopped midway, run again, and after the reaper has looked at a database that was put back."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from clients.browser import Browser
from clients.build_workflows import BuildToStart
from clients.object_store import ObjectStore, store_config
from clients.sandbox import Role, Sandboxes, sandbox_config
from clients.sandbox_runner import WORKSPACE
from db import recovery
from db.builds import load_build
from db.feed import append_events
from db.models import Build, Event, Preview, Project, Snapshot
from db.snapshots import final_snapshot
from db.transaction import transaction
from domain.events import StatusEvent
from domain.lost_calls import lost_calls
from domain.names import preview_workflow_id
from domain.recovery_plan import Step
from domain.status import Status
from domain.verdicts import WorkflowFate
from local.stack import LocalStack
from services.recovery import Deployment, Stock, carry_out, take_stock
from tests.harness.api_server import new_database
from tests.harness.build_rows import builds_of
from tests.harness.reaper import reap_until
from tests.harness.reset import completed_tasks, reset
from tests.harness.scripts import PRODUCT, SMALL, bash, hold, steps
from tests.harness.wait import wait_until
from tests.harness.worker import WorkerHarness, worker_harness
from tests.workflows.scenarios import ready_build

COMMIT = "date +%N > change && git add -A && git -c user.name=c -c user.email=c@example.org commit -qm 'A change'"


@pytest.fixture
async def deployment(harness: WorkerHarness) -> AsyncIterator[Deployment]:
    async with deployment_of(harness) as opened:
        yield opened


@asynccontextmanager
async def deployment_of(harness: WorkerHarness) -> AsyncIterator[Deployment]:
    sandboxes = Sandboxes(sandbox_config(harness.settings))
    async with ObjectStore(store_config(harness.settings)) as store:
        yield Deployment(harness.sessions, harness.builds, sandboxes, store, WORKSPACE, harness.settings.snapshots_kept)
    await sandboxes.close()


async def stock_of(deployment: Deployment, build_id: uuid.UUID) -> Stock:
    """Take stock, and leave out the builds of other tests."""
    stock = await take_stock(deployment, after_restore=True)
    own = tuple(planned for planned in stock.plan.steps if planned.build_id == str(build_id))
    return replace(stock, plan=replace(stock.plan, steps=own))


async def carry(deployment: Deployment, stock: Stock) -> None:
    problems: list[str] = []
    await carry_out(deployment, stock, rate=100, after_restore=True, report=lambda _, problem: problems.append(problem))
    assert not any(problems), problems


async def test_a_repeat_forgets_nothing_of_what_was_lost(harness: WorkerHarness) -> None:
    [build_id] = await builds_of(harness.sessions, f"founder-{uuid.uuid4()}", 1)
    for minutes, noted in ((12, 12), (None, 12), (1, 12), (30, 30)):
        async with transaction(harness.sessions) as tx:
            await recovery.note_loss(tx, build_id, minutes)
            assert (await load_build(tx, build_id)).lost_minutes == noted


async def test_what_a_recovery_writes_does_not_date_the_database(harness: WorkerHarness) -> None:
    [build_id] = await builds_of(harness.sessions, f"founder-{uuid.uuid4()}", 1)
    async with transaction(harness.sessions) as tx:
        await append_events(tx, build_id, [StatusEvent(status=Status.FAILED)])
        written_at = await recovery.last_event_at(tx)
        closed = update(Build).where(Build.id == build_id).values(status=Status.FAILED, closed_at=datetime.now(UTC))
        assert written_at == await tx.session.scalar(select(Event.created_at).where(Event.build_id == build_id))
        await tx.session.execute(closed)
        assert await recovery.last_event_at(tx) != written_at


async def test_there_may_be_more_builds_than_a_statement_has_parameters(harness: WorkerHarness) -> None:
    [build_id] = await builds_of(harness.sessions, f"founder-{uuid.uuid4()}", 1)
    async with harness.session() as tx:
        assert await recovery.known_builds(tx, [build_id, *(uuid.uuid4() for _ in range(33_000))]) == {build_id}


async def test_an_orphan_gets_its_row_before_it_ends(
    harness: WorkerHarness, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = BuildToStart(uuid.uuid4(), f"founder-{uuid.uuid4()}", uuid.uuid4(), "bootstrapper")
    await deployment.workflows.start(build)

    async def fate() -> bool:
        planned = (await stock_of(deployment, build.build_id)).plan.steps
        return [step.step for step in planned] == [Step.END_ORPHAN]

    await wait_until(fate)
    stock = await stock_of(deployment, build.build_id)

    async def stop(*_: object) -> None:
        raise KeyboardInterrupt  # as an operator does in the middle

    with monkeypatch.context() as patched:
        patched.setattr(deployment.workflows, "terminate", stop)
        with pytest.raises(KeyboardInterrupt):
            await carry(deployment, stock)
    async with harness.session() as tx:
        row = await load_build(tx, build.build_id)
        assert (row.status, (await tx.session.get_one(Project, build.project_id)).name) == ("failed", "Recovered")
    await carry(deployment, stock)
    assert await deployment.workflows.fate(harness.handle(build.build_id).id) is WorkflowFate.TERMINATED


async def test_the_product_of_a_build_that_the_reaper_has_closed_is_imported(
    harness: WorkerHarness, deployment: Deployment
) -> None:
    build_id = await harness.start(script=SMALL)
    await ready_build(harness, build_id)
    async with transaction(harness.sessions) as tx:
        product = await final_snapshot(tx, build_id)
        assert product is not None
        # As after a restore of the database: the reaper has closed the row, which no snapshot belongs to.
        await tx.session.execute(delete(Snapshot).where(Snapshot.build_id == build_id))
    stock = await stock_of(deployment, build_id)
    assert [planned.step for planned in stock.plan.steps] == [Step.IMPORT]
    await carry(deployment, stock)
    async with harness.session() as tx:
        imported = await final_snapshot(tx, build_id)
        assert imported is not None
        assert (imported.final, imported.number) == (True, product.number)
        assert imported.archive_sha256 == product.archive_sha256
    assert (await stock_of(deployment, build_id)).plan.steps == ()


async def test_no_more_snapshots_stay_of_a_ready_build_than_without_a_recovery(
    harness: WorkerHarness, deployment: Deployment
) -> None:
    build_id = await harness.start(script=steps([bash(PRODUCT)], [bash(COMMIT)], [bash(COMMIT)]))
    await ready_build(harness, build_id)
    async with transaction(harness.sessions) as tx:
        product = await final_snapshot(tx, build_id)
        assert product is not None
        of_build = select(Snapshot).where(Snapshot.build_id == build_id, Snapshot.state == "stored")
        assert len(list(await tx.session.scalars(of_build))) > 2
        await tx.session.execute(delete(Snapshot).where(Snapshot.build_id == build_id))
    await carry(replace(deployment, snapshots_kept=1), await stock_of(deployment, build_id))
    async with transaction(harness.sessions) as tx:
        final, *others = await tx.session.scalars(of_build.order_by(Snapshot.final.desc()))
        assert (final.final, final.number, len(others)) == (True, product.number, 1)
    gone = set(await deployment.store.keys(f"snapshots/{build_id}/")) - {final.archive_key, final.manifest_key}
    assert len(gone) > 4, "objects go days later, by tombstone"


async def test_a_call_that_was_made_again_in_the_lost_time_is_booked(
    harness: WorkerHarness, deployment: Deployment
) -> None:
    """The rows know the first call of the turn, and not the one that was made in its place."""
    build_id = await harness.start(script=steps([hold()]), faults=[{"kind": "cut"}])
    await harness.until_event(build_id, "tool_started")
    progress = await deployment.workflows.progress(build_id, 0)
    async with transaction(harness.sessions) as tx:
        calls = (await recovery.known_calls(tx, build_id)).calls
        assert lost_calls(progress.asked, calls, answered=0, progress=1) == []
        lost = lost_calls(progress.asked, [min(calls, key=lambda call: call.opened_at)], answered=0, progress=1)
        assert [call.turn for call in lost] == [1]
        build, day = await load_build(tx, build_id), datetime.now(UTC).date()
        assert await recovery.book_lost_calls(tx, build, lost, day) > 0
        assert await recovery.book_lost_calls(tx, build, lost, day) == 0
    assert progress.turn == 1
    await harness.builds.cancel(build_id)
    await harness.finished(build_id)


async def test_an_answer_that_could_not_be_used_is_known(harness: WorkerHarness, deployment: Deployment) -> None:
    build_id = await harness.start(script=steps([hold()]), faults=[{"kind": "context_exceeded"}])
    await harness.until_event(build_id, "tool_started")
    [turn] = (await deployment.workflows.progress(build_id, 0)).asked
    assert (turn.turn, turn.calls) == (1, 2)
    await harness.builds.cancel(build_id)
    await harness.finished(build_id)


async def test_what_a_run_did_before_it_was_reset_is_known(harness: WorkerHarness, deployment: Deployment) -> None:
    build_id = await harness.start(script=steps([hold()]))
    await harness.until_event(build_id, "tool_started")
    workflow_id = harness.handle(build_id).id
    first, *_ = await completed_tasks(harness.client, workflow_id)
    await reset(harness.client, workflow_id, first)
    progress = await deployment.workflows.progress(build_id, 0)
    assert (progress.turn, progress.asked[0].turn, progress.asked[0].calls >= 1) == (1, 1, True)
    await harness.builds.cancel(build_id)
    await harness.finished(build_id)


async def test_what_the_runs_before_the_last_one_did_is_known(stack: LocalStack, browser: Browser) -> None:
    """A build that has continued as new twice since the moment to which the database was put back. A run that begins
    after the last known turn does not know what was asked for between that turn and its beginning."""
    async with worker_harness(stack, browser, continue_as_new_turns=2) as harness, deployment_of(harness) as deployment:
        script = steps(*([bash(f"echo {turn}")] for turn in range(4)), [hold()])
        build_id = await harness.start(script=script, faults=[{"kind": "context_exceeded"}])
        await wait_until(lambda: _is_answered(harness, build_id, 5))
        workflows, all_calls = deployment.workflows, {1: 2, 2: 1, 3: 1, 4: 1, 5: 1}
        for answered, calls in ((0, all_calls), (2, all_calls), (3, {3: 1, 4: 1, 5: 1}), (5, {5: 1})):
            progress = await workflows.progress(build_id, answered)
            assert (progress.turn, {each.turn: each.calls for each in progress.asked}) == (5, calls)
        async with transaction(harness.sessions) as tx:
            known = (await recovery.known_calls(tx, build_id)).calls
        progress = await workflows.progress(build_id, 0)
        assert lost_calls(progress.asked, known, answered=0, progress=5) == []
        assert len(lost_calls(progress.asked, [], answered=0, progress=5)) == len(known) == 6
        await harness.builds.cancel(build_id)
        await harness.finished(build_id)


async def _is_answered(harness: WorkerHarness, build_id: uuid.UUID, turn: int) -> bool:
    return any(event.turn == turn for event in await harness.events(build_id, "tool_started"))


async def test_a_gates_sandbox_ends_whose_preview_was_lost_with_the_namespace(
    harness: WorkerHarness, deployment: Deployment
) -> None:
    """As if the namespace was lost before the preview's workflow had written its row."""
    [build_id] = await builds_of(harness.sessions, f"founder-{uuid.uuid4()}", 1)
    sandbox = await deployment.sandboxes.create(str(build_id), Role.GATE)
    assert (await stock_of(deployment, build_id)).inventory.with_sandbox.isdisjoint({str(build_id)})
    closed = {"status": Status.READY, "closed_at": datetime.now(UTC), "build_version": 1}
    async with transaction(harness.sessions) as tx:
        await tx.session.execute(update(Build).where(Build.id == build_id).values(closed))
    stock = await stock_of(deployment, build_id)
    assert [planned.step for planned in stock.plan.steps] == [Step.END_SANDBOXES]
    await carry(deployment, stock)
    assert sandbox.id not in {each.id for each in await deployment.sandboxes.list_all()}
    assert (await stock_of(deployment, build_id)).plan.steps == ()


async def test_a_build_that_became_ready_as_the_namespace_was_lost_leaves_no_sandbox(
    harness: WorkerHarness, deployment: Deployment
) -> None:
    """It had not released its workspace, and its preview was opening."""
    build_id = await _ready_row(harness, Preview(state="opening", seq=1))
    for role in (Role.WORKSPACE, Role.GATE):
        await deployment.sandboxes.create(str(build_id), role)
    stock = await stock_of(deployment, build_id)
    await carry(deployment, stock)
    assert [planned.step for planned in stock.plan.steps] == [Step.CLOSE_PREVIEW, Step.END_SANDBOXES]
    assert str(build_id) not in {each.build_id for each in await deployment.sandboxes.list_all()}


async def test_a_workspace_ends_when_the_preview_of_its_build_is_opened_again(
    harness: WorkerHarness, deployment: Deployment
) -> None:
    later = datetime.now(UTC) + timedelta(minutes=5)
    build_id = await _ready_row(harness, Preview(state="open", seq=2, expires_at=later))
    workspace = await deployment.sandboxes.create(str(build_id), Role.WORKSPACE)
    push = await deployment.sandboxes.create(str(build_id), Role.PUSH, offline=True)
    stock = await stock_of(deployment, build_id)
    await carry(deployment, stock)
    assert [planned.step for planned in stock.plan.steps] == [Step.OPEN_PREVIEW]
    listed = {each.id for each in await deployment.sandboxes.list_all()}
    assert (workspace.id in listed, push.id in listed) == (False, True)
    await deployment.sandboxes.kill(push.id)
    await harness.client.get_workflow_handle(preview_workflow_id(build_id)).cancel()


async def test_what_a_lost_workflow_did_too_late_for_the_recovery_ends_by_itself(
    stack: LocalStack, browser: Browser
) -> None:
    """A worker of the lost namespace was cut off, and makes a sandbox and opens a preview after the recovery."""
    own: dict[str, Any] = {"database_url": await new_database(stack), "reaper_spares_seconds": 0}
    async with worker_harness(stack, browser, **own) as harness, deployment_of(harness) as deployment:
        sandboxes = deployment.sandboxes
        lost, ended_later = await _ready_row(harness), await _ready_row(harness, None, timedelta(minutes=1))
        await carry(deployment, await stock_of(deployment, lost))
        async with transaction(harness.sessions) as tx:
            tx.session.add_all(Preview(build_id=each, state="open", seq=1) for each in (lost, ended_later))
        made = {each: await sandboxes.create(str(each), Role.PREVIEW) for each in (lost, ended_later)}

        async def has_ended() -> bool:
            return made[lost].id not in {each.id for each in await sandboxes.list_all()}

        await reap_until(harness, has_ended, everything=True)
        async with transaction(harness.sessions) as tx:
            states = [(await tx.session.get_one(Preview, each)).state for each in (lost, ended_later)]
        assert states == ["closed", "open"]
        assert [each.build_id for each in await sandboxes.list_all() if each.id == made[ended_later].id]
        await sandboxes.kill(made[ended_later].id)


async def _ready_row(
    harness: WorkerHarness, preview: Preview | None = None, closed_in: timedelta = timedelta(0)
) -> uuid.UUID:
    """Insert a ready build without workflows, and its preview's row."""
    [build_id] = await builds_of(harness.sessions, f"founder-{uuid.uuid4()}", 1)
    closed = {"status": Status.READY, "closed_at": datetime.now(UTC) + closed_in, "build_version": 1}
    async with transaction(harness.sessions) as tx:
        await tx.session.execute(update(Build).where(Build.id == build_id).values(closed))
        if preview is not None:
            preview.build_id = build_id
            tx.session.add(preview)
    return build_id
