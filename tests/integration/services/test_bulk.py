"""Acts on many builds: each build gets the act once, whatever dies in between, and what does not fit is skipped."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import DBAPIError
from temporalio.client import Client
from temporalio.worker import Worker

from activities.bulk import BulkActivities
from api.bulk_schemas import BulkRunOut
from clients.build_workflows import BuildWorkflows
from clients.temporal import connect_temporal
from db import bulk_runs
from db.bulk_runs import list_builds
from db.erasures import insert_erasure
from db.formats import ThisProcess, announce, forget, own_formats
from db.models import AuditEntry, Build, BulkRun, Process, User
from db.session import Sessions, open_sessions
from db.transaction import Transaction, savepoint, transaction
from db.users import UserChange
from domain.audit import Action, Author
from domain.bulk import BulkAct, BulkState, ItemState
from domain.erasure import ErasureKind
from domain.errors import Conflict, InvalidInput, KeyReused
from domain.formats import SCHEMA
from domain.identity import How
from domain.names import FINISH, WAKE, build_workflow_id, bulk_workflow_id
from domain.status import Status
from local.stack import LocalStack
from services import bulk
from services.accounts import change_account
from services.bulk import BulkRuns, NewRun, create_run, read_run, resume_run, stop_run, try_run
from services.reap.look import Budget
from services.reap.nudges import Nudges
from tests.harness.deployments import new_deployment
from tests.harness.many_builds import ManyBuilds, make_builds
from tests.harness.wait import DEADLINE, wait_until
from workflows.bulk import BulkWorkflow

BUILDS = 12
OPERATOR = Author("operator", How.OPERATOR_TOKEN)


@dataclass
class Fleet:
    """Sleeping builds whose workflows no worker runs, and what carries out bulk runs."""

    sessions: Sessions
    client: Client
    workflows: BuildWorkflows
    queue: str
    builds: ManyBuilds

    async def create(self, act: BulkAct = BulkAct.WAKE, where: str = "status=sleeping", **given: Any) -> uuid.UUID:
        """Make a run, and start its workflow."""
        new = NewRun(act, where, **{"rate": 50, "reason": "a test", **given})
        return (await create_run(self.sessions.by(OPERATOR), self.workflows, new)).row.id

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        """Run a worker that carries out runs."""
        carrying = BulkActivities(self.sessions, self.workflows)
        async with Worker(
            self.client, task_queue=self.queue, workflows=[BulkWorkflow], activities=[carrying.carry_out_batch]
        ):
            yield

    async def until(self, run_id: uuid.UUID, state: BulkState) -> bulk.Run:
        """Wait until the run is in the state."""

        async def is_there() -> bool:
            return (await self.run(run_id)).row.state == state

        await wait_until(is_there)
        return await self.run(run_id)

    async def run(self, run_id: uuid.UUID) -> bulk.Run:
        """Read a run."""
        async with transaction(self.sessions) as tx:
            return await read_run(tx, run_id)

    async def items(self, run_id: uuid.UUID) -> dict[uuid.UUID, tuple[str, str | None]]:
        """The state of each build of a run, and why."""
        async with transaction(self.sessions) as tx:
            return {each.item.build_id: (each.item.state, each.item.why) for each in await list_builds(tx, run_id, 100)}

    async def signals(self, build_id: uuid.UUID) -> list[str]:
        """The signals that a build's workflow has received."""
        history = await self.client.get_workflow_handle(build_workflow_id(build_id)).fetch_history()
        return [
            event.workflow_execution_signaled_event_attributes.signal_name
            for event in history.events
            if event.HasField("workflow_execution_signaled_event_attributes")
        ]

    async def audited(self, action: Action) -> list[AuditEntry]:
        """The entries of an act."""
        async with transaction(self.sessions) as tx:
            return list(await tx.session.scalars(select(AuditEntry).where(AuditEntry.action == action)))

    async def change(self, build_ids: Sequence[uuid.UUID], **values: Any) -> None:
        """Change rows of builds."""
        async with transaction(self.sessions) as tx:
            await tx.session.execute(update(Build).where(Build.id.in_(build_ids)).values(**values))


@pytest.fixture
async def fleet(stack: LocalStack) -> AsyncIterator[Fleet]:
    settings, client = await new_deployment(stack)
    async with open_sessions(settings.database_url, 10) as sessions:
        many = await make_builds(sessions, client, BUILDS)
        queue = settings.temporal_task_queue
        made = Fleet(sessions, client, BuildWorkflows(client, queue), queue, many)
        await made.change(many.ids, status=Status.SLEEPING)
        yield made


class _Dies:
    """Lets an attempt die after its signals were sent and before that is written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
        self.left = after
        self.dead = asyncio.Event()
        settle = bulk_runs.settle

        async def settle_or_die(*args: Any) -> None:
            self.left -= 1
            if self.left < 0:
                self.dead.set()
                await asyncio.Event().wait()
            await settle(*args)

        monkeypatch.setattr(bulk_runs, "settle", settle_or_die)


async def test_a_run_that_dies_in_the_middle_is_resumed_and_wakes_each_build_once(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = await fleet.create(rate=20)
    with monkeypatch.context() as patched:
        dies = _Dies(patched, after=5)
        async with asyncio.timeout(DEADLINE):
            attempt = asyncio.create_task(BulkRuns(fleet.sessions, fleet.workflows).carry_out(run_id))
            await dies.dead.wait()
            attempt.cancel()
            await asyncio.wait([attempt])
    assert 1 <= (await fleet.run(run_id)).counts.done <= 5
    async with fleet.worker():
        run = await fleet.until(run_id, BulkState.FINISHED)
        await fleet.client.get_workflow_handle(bulk_workflow_id(run_id)).result()
    assert (run.counts.done, run.counts.pending, run.row.total) == (BUILDS, 0, BUILDS)
    signals = await asyncio.gather(*map(fleet.signals, fleet.builds.ids))
    assert signals == [[WAKE]] * BUILDS
    entries = await fleet.audited(Action.BUILD_WAKE)
    assert {entry.build_id for entry in entries} == set(fleet.builds.ids)
    assert len(entries) == BUILDS
    assert {(entry.actor, entry.fields["bulk_run"]) for entry in entries} == {("operator", str(run_id))}


async def test_the_reaper_starts_a_run_whose_workflow_was_not_started(fleet: Fleet) -> None:
    new = NewRun(BulkAct.WAKE, "status=sleeping", 50, "a test")
    away = BuildWorkflows(await connect_temporal({"TEMPORAL_ADDRESS": "127.0.0.1:1"}, lazy=True), fleet.queue)
    run_id = (await create_run(fleet.sessions.by(OPERATOR), away, new)).row.id
    async with fleet.worker():
        looked = await Nudges(fleet.sessions, fleet.workflows).look(Budget())
        assert looked.started == 1
        run = await fleet.until(run_id, BulkState.FINISHED)
    assert run.counts.done == BUILDS


async def test_a_build_that_the_act_does_not_fit_is_skipped_with_why(fleet: Fleet) -> None:
    run_id = await fleet.create()
    awake, cancelled, closed, lost, *others = fleet.builds.ids
    await fleet.change([awake], status=Status.CODE)
    await fleet.change([cancelled], cancel_requested_at=func.now())
    await fleet.change([closed], status=Status.FAILED, closed_at=func.now())
    await fleet.client.get_workflow_handle(build_workflow_id(lost)).terminate()
    async with fleet.worker():
        run = await fleet.until(run_id, BulkState.FINISHED)
    items = await fleet.items(run_id)
    assert items[awake] == (ItemState.SKIPPED, "The build does not wait: it is code.")
    assert items[cancelled] == (ItemState.SKIPPED, "The build is being cancelled.")
    assert items[closed] == (ItemState.SKIPPED, "The build has ended: it is failed.")
    assert items[lost] == (ItemState.FAILED, "Temporal has no running workflow of this build.")
    assert {items[each] for each in others} == {(ItemState.DONE, None)}
    assert (run.counts.skipped, run.counts.failed, run.counts.done) == (3, 1, BUILDS - 4)


@pytest.mark.thorough
async def test_a_run_can_be_stopped_and_resumed(fleet: Fleet) -> None:
    run_id = await fleet.create(BulkAct.FINISH, rate=2)
    async with fleet.worker():

        async def has_begun() -> bool:
            return (await fleet.run(run_id)).counts.done > 0

        await wait_until(has_begun)
        async with transaction(fleet.sessions.by(OPERATOR)) as tx:
            stopped = await stop_run(tx, run_id)
        assert (stopped.row.state, stopped.row.stopped_by) == (BulkState.STOPPED, "operator")
        await fleet.client.get_workflow_handle(bulk_workflow_id(run_id)).result()
        assert 0 < (await fleet.run(run_id)).counts.done <= 4
        async with transaction(fleet.sessions) as tx:
            await tx.session.execute(update(BulkRun).values(rate=50))
        await resume_run(fleet.sessions.by(OPERATOR), fleet.workflows, run_id)
        run = await fleet.until(run_id, BulkState.FINISHED)
    assert run.counts.done == BUILDS
    assert await asyncio.gather(*map(fleet.signals, fleet.builds.ids)) == [[FINISH]] * BUILDS
    with pytest.raises(Conflict, match="reached all"):
        await resume_run(fleet.sessions, fleet.workflows, run_id)
    for action, entries in ((Action.BULK_CREATE, 1), (Action.BULK_STOP, 1), (Action.BULK_RESUME, 1)):
        assert len(await fleet.audited(action)) == entries


async def test_a_stop_waits_for_an_act_that_is_being_written(fleet: Fleet) -> None:
    run_id = await fleet.create(BulkAct.FINISH, rate=1)
    async with transaction(fleet.sessions) as acting:
        assert await bulk_runs.is_running(acting, run_id)
        async with transaction(fleet.sessions) as stopping:
            await stopping.session.execute(text("set local lock_timeout = '100ms'"))
            with pytest.raises(DBAPIError, match="lock timeout"):
                await _lock_in_a_savepoint(stopping, run_id)


async def _lock_in_a_savepoint(tx: Transaction, run_id: uuid.UUID) -> None:
    async with savepoint(tx):
        await bulk_runs.lock_run(tx, run_id)


@pytest.mark.thorough
async def test_users_are_suspended_once_and_builds_cancelled(fleet: Fleet) -> None:
    one, two, *_ = fleet.builds.ids
    async with transaction(fleet.sessions) as tx:
        user = (await tx.session.get_one(Build, one)).user_id
    await fleet.change([two], user_id=user)
    async with transaction(fleet.sessions) as tx:
        expected = await try_run(tx, NewRun(BulkAct.SUSPEND, f"user={user} and open=true", 10, "abuse"))
    assert (expected.count, expected.fitting) == (2, 1)
    async with fleet.worker():
        suspending = await fleet.create(BulkAct.SUSPEND, f"user={user} and open=true")
        run = await fleet.until(suspending, BulkState.FINISHED)
        assert (run.counts.done, run.counts.skipped) == (1, 1)
        assert len(await fleet.audited(Action.ACCOUNT_CHANGE)) == 1
        lifting = await fleet.create(BulkAct.UNSUSPEND, f"user={user}")
        lifted = await fleet.until(lifting, BulkState.FINISHED)
        skipped = lifted.row.total - 1  # the other one, and those that have ended
        assert (lifted.counts.done, lifted.counts.skipped) == (1, skipped)
        assert (lifted.row.done, lifted.row.skipped, lifted.row.counted_at) == (1, skipped, lifted.row.ended_at)
        async with transaction(fleet.sessions) as tx:
            assert not (await tx.session.get_one(User, user)).suspended
            row = await tx.session.get_one(BulkRun, lifting)
            row.counted_at = None  # as a worker of an older version ends it
            assert await bulk_runs.counts_of(tx, row) == lifted.counts
        cancelling = await fleet.create(BulkAct.CANCEL, f"user={user} and open=true")
        assert (await fleet.until(cancelling, BulkState.FINISHED)).counts.done == 2
    async with transaction(fleet.sessions) as tx:
        assert all([(await tx.session.get_one(Build, each)).cancel_requested_at for each in (one, two)])


@pytest.mark.thorough
async def test_a_dry_run_writes_nothing_and_a_repeat_makes_no_second_run(fleet: Fleet) -> None:
    new = NewRun(BulkAct.WAKE, "open=true", 10, "a test", "key-1")
    await fleet.change(fleet.builds.ids[:1], status=Status.CODE)
    async with transaction(fleet.sessions) as tx:
        expected = await try_run(tx, new)
        assert await tx.session.scalar(select(func.count()).select_from(BulkRun)) == 0
    assert (expected.count, expected.fitting, len(expected.sample)) == (BUILDS, BUILDS - 1, BUILDS)
    acting = fleet.sessions.by(OPERATOR)
    first, second = [await create_run(acting, fleet.workflows, new) for _ in range(2)]
    assert first.row.id == second.row.id
    with pytest.raises(KeyReused):
        await create_run(acting, fleet.workflows, NewRun(BulkAct.WAKE, "open=true", 11, "a test", "key-1"))
    for where, rate, about in (("", 10, "empty"), ("open=true", 51, "from 1 to 50"), ("colour=red", 10, "no field")):
        with pytest.raises(InvalidInput, match=about):
            await fleet.create(where=where, rate=rate)


async def test_the_suspension_of_an_account_that_is_being_deleted_stays(fleet: Fleet) -> None:
    async with transaction(fleet.sessions) as tx:
        user = (await tx.session.get_one(Build, fleet.builds.ids[0])).user_id
        await insert_erasure(tx, ErasureKind.USER, user, None, user)
        await tx.session.execute(update(User).where(User.id == user).values(suspended=True))
    with pytest.raises(Conflict, match="is being deleted"):
        async with transaction(fleet.sessions) as tx:
            await change_account(tx, user, UserChange(suspended=False), datetime.now(UTC).date())
    async with fleet.worker():
        run = await fleet.until(await fleet.create(BulkAct.UNSUSPEND, f"user={user}"), BulkState.FINISHED)
    assert (run.counts.done, run.counts.skipped) == (0, run.row.total)
    async with transaction(fleet.sessions) as tx:
        assert (await tx.session.get_one(User, user)).suspended


async def test_suspensions_are_lifted_once_no_older_api_runs(fleet: Fleet) -> None:
    older = uuid.uuid4()
    async with transaction(fleet.sessions) as tx:
        await announce(tx, ThisProcess(older, "api", "0.0.9", 22))
        reads = {**own_formats(), SCHEMA: bulk.UNSUSPEND_SCHEMA - 1}
        await tx.session.execute(update(Process).where(Process.id == older).values(reads=reads))
    with pytest.raises(Conflict, match=r"1 api of version 0\.0\.9"):
        await fleet.create(BulkAct.UNSUSPEND)
    await fleet.create(BulkAct.WAKE)
    async with transaction(fleet.sessions) as tx:
        await forget(tx, older)
    await fleet.create(BulkAct.UNSUSPEND)


async def test_a_run_whose_act_is_unknown_is_shown_and_stopped(fleet: Fleet) -> None:
    run_id = await fleet.create()
    async with transaction(fleet.sessions) as tx:
        await tx.session.execute(text("alter table bulk_runs drop constraint ck_bulk_runs_act"))
        await tx.session.execute(update(BulkRun).values(act="juggle"))
    assert BulkRunOut.of(await fleet.run(run_id)).act == "juggle"
    batch = await BulkRuns(fleet.sessions, fleet.workflows).carry_out(run_id)
    assert (batch.tried, batch.is_over) == (0, True)
    stopped = (await fleet.run(run_id)).row
    assert (stopped.state, stopped.stopped_by) == (BulkState.STOPPED, "a worker that does not know the act juggle")
