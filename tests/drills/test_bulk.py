"""An act on hundreds of builds, whose worker is killed in the middle: each build gets the act once."""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack

from sqlalchemy import func, select, text, update

from clients.build_workflows import BuildWorkflows
from clients.temporal import connect_temporal, describe_namespace
from db.migrate import migrate
from db.models import AuditEntry, Build
from db.session import Sessions, open_sessions
from db.transaction import transaction
from domain.audit import Action, Author
from domain.bulk import BulkAct, BulkState
from domain.identity import How
from domain.names import WAKE, build_workflow_id
from domain.status import Status
from local.stack import LocalStack
from services.bulk import NewRun, Run, create_run, read_run
from services.deployment import rebind
from tests.harness.many_builds import ManyBuilds, make_builds
from tests.harness.wait import wait_until
from tests.harness.worker import WorkerHarness, settings_of
from tests.harness.worker_process import worker_process

BUILDS = 500
RATE = 20


async def test_bulk_wake_killed_in_the_middle(figure: Callable[[str], None]) -> None:
    """500 builds are woken at 20 a second; the worker is killed once 150 are, and another one goes on."""
    async with AsyncExitStack() as opened:
        stack = await opened.enter_async_context(LocalStack(durable=False, temporal_ui=False))
        await migrate(stack.environment["DATABASE_URL"])
        settings = settings_of(stack)
        client = await connect_temporal(stack.environment)
        sessions = await opened.enter_async_context(open_sessions(settings.database_url))
        await rebind(sessions, await describe_namespace(client))
        many = await make_builds(sessions, client, BUILDS)
        async with transaction(sessions) as tx:
            await tx.session.execute(update(Build).where(Build.closed_at.is_(None)).values(status=Status.SLEEPING))
        harness = WorkerHarness(settings, client, sessions, settings.anthropic_base_url or "")
        workflows = BuildWorkflows(client, settings.temporal_task_queue)
        acting = sessions.by(Author("operator", How.OPERATOR_TOKEN))
        begun = time.monotonic()
        run_id = (await create_run(acting, workflows, NewRun(BulkAct.WAKE, "status=sleeping", RATE, "a drill"))).row.id
        async with worker_process(harness, stack) as first:
            await first.until("worker started")
            await _until(sessions, run_id, lambda run: run.counts.done >= 150)
            first.process.kill()
            await first.process.wait()
        at_kill = (await _run(sessions, run_id)).counts.done
        assert at_kill < BUILDS
        async with worker_process(harness, stack) as second:
            await second.until("worker started")
            run = await _until(sessions, run_id, lambda run: run.row.state == BulkState.FINISHED)
        assert (run.counts.done, run.counts.failed, run.counts.skipped) == (BUILDS, 0, 0)
        signals = await _signals(many)
        assert signals == {(WAKE,): BUILDS}, "each workflow has got one signal"
        async with transaction(sessions) as tx:
            audited = select(func.count(), func.count(AuditEntry.build_id.distinct()))
            numbers = (await tx.session.execute(audited.where(AuditEntry.action == Action.BUILD_WAKE))).one()
            fastest = await tx.session.scalar(text(_FASTEST))
        assert tuple(numbers) == (BUILDS, BUILDS)
        seconds = time.monotonic() - begun
        figure(
            f"{BUILDS} of {BUILDS} woken once in {seconds:.0f} s at {RATE} a second, at most {fastest} in a second; "
            f"killed after {at_kill}; {signals[(WAKE,)]} workflows with one signal, 0 with two"
        )


_FASTEST = "select max(n) from (select count(*) as n from bulk_run_builds group by date_trunc('second', at)) as seconds"


async def _run(sessions: Sessions, run_id: uuid.UUID) -> Run:
    async with transaction(sessions) as tx:
        return await read_run(tx, run_id)


async def _until(sessions: Sessions, run_id: uuid.UUID, condition: Callable[[Run], bool]) -> Run:
    async def holds() -> bool:
        return condition(await _run(sessions, run_id))

    await wait_until(holds)
    return await _run(sessions, run_id)


async def _signals(many: ManyBuilds) -> Counter[tuple[str, ...]]:
    """How many workflows have received which signals."""
    free = asyncio.Semaphore(20)

    async def signals(build_id: uuid.UUID) -> tuple[str, ...]:
        async with free:
            history = await many.client.get_workflow_handle(build_workflow_id(build_id)).fetch_history()
        return tuple(
            event.workflow_execution_signaled_event_attributes.signal_name
            for event in history.events
            if event.HasField("workflow_execution_signaled_event_attributes")
        )

    return Counter(await asyncio.gather(*map(signals, many.ids)))
