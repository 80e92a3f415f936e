"""`python worker.py` as operators run it: several at once, stopped in the middle of a tool call."""

import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from sqlalchemy import select
from temporalio.client import WorkflowFailureError

from activities.runtime.shutdown import UNPAID_GRACE
from clients.sandbox import Sandboxes, sandbox_config
from db.models import LedgerEntry, ToolCall
from domain.names import preview_workflow_id
from domain.status import Status
from local.stack import LocalStack
from tests.harness.scripts import PRODUCT, SMALL, bash, steps
from tests.harness.wait import wait_until
from tests.harness.worker import WorkerHarness, idle_harness
from tests.harness.worker_process import worker_process


@pytest.fixture
async def harness(stack: LocalStack) -> AsyncIterator[WorkerHarness]:
    """A harness without a worker, on a task queue of its own."""
    async with idle_harness(stack) as idle:
        yield idle


_HELD = "echo ran >> ../runs; until [ -e ../go ]; do sleep 0.1; done"


async def _identities(harness: WorkerHarness, build_id: uuid.UUID) -> set[str]:
    """Return the identities of the workers that took the build's workflow tasks."""
    history = await harness.handle(build_id).fetch_history()
    return {
        event.workflow_task_started_event_attributes.identity
        for event in history.events
        if event.HasField("workflow_task_started_event_attributes")
    }


async def test_a_stopped_worker_leaves_its_call_to_others_who_share_the_work(
    harness: WorkerHarness, stack: LocalStack
) -> None:
    async with worker_process(harness, stack) as first:
        started = await first.until("worker started")
        assert started["task_queue"] == harness.settings.temporal_task_queue
        build_id = await harness.start(script=steps([bash(_HELD, 300)], [bash("cat ../runs"), bash(PRODUCT)]))
        await harness.until_event(build_id, "tool_started")
        assert await first.stop() == 0
        assert first.logged[-1]["level"] == "info"
    assert (await harness.row(build_id)).closed_at is None

    async with worker_process(harness, stack) as second, worker_process(harness, stack) as third:
        names = {(await each.until("worker started"))["identity"] for each in (second, third)}
        sandboxes = Sandboxes(sandbox_config(harness.settings))
        sandbox_id = (await harness.row(build_id)).sandbox_id
        assert sandbox_id is not None
        await (await sandboxes.connect(sandbox_id)).write("/home/user/go", "")
        await sandboxes.close()
        # Builds of a suspended account end at once. Start them until each worker has had one.
        suspended, took = await harness.founder(suspended=True), set[str]()

        async def all_took_some() -> bool:
            many = [await harness.start(suspended) for _ in range(5)]
            for each in many:
                assert (await harness.finished(each)).status == Status.FAILED
                took.update(await _identities(harness, each))
            return names <= took

        await wait_until(all_took_some)
        row = await harness.finished(build_id)
        assert row.status == Status.READY, row.reason

        preview = harness.client.get_workflow_handle(preview_workflow_id(build_id))
        await preview.cancel()
        with suppress(WorkflowFailureError):
            await preview.result()
        assert [await each.stop() for each in (second, third)] == [0, 0]

    async with harness.session() as tx:
        in_order = (
            select(ToolCall.result).where(ToolCall.build_id == build_id).order_by(ToolCall.turn, ToolCall.position)
        )
        results = (await tx.session.scalars(in_order)).all()
    assert str(results[1]).count("ran") == 1


async def test_a_stopped_worker_lets_the_judge_answer(harness: WorkerHarness, stack: LocalStack) -> None:
    """The gate gets ten seconds, as all activities that are not paid; its call to the judge may end."""
    slow = {"kind": "stall", "seconds": UNPAID_GRACE.total_seconds() + 3, "request": "judge"}
    async with worker_process(harness, stack, GRACEFUL_SHUTDOWN_SECONDS="300") as first:
        await first.until("worker started")
        build_id = await harness.start(script=SMALL, faults=[slow])

        async def is_judged() -> bool:
            async with harness.session() as tx:
                judged = select(LedgerEntry.state).where(LedgerEntry.build_id == build_id, LedgerEntry.kind == "judge")
                return await tx.session.scalar(judged) == "open"

        await wait_until(is_judged)
        assert await first.stop() == 0
    async with worker_process(harness, stack) as second:
        await second.until("worker started")
        assert (await harness.finished(build_id)).status == Status.READY
    async with harness.session() as tx:
        calls = await tx.session.scalars(select(LedgerEntry).where(LedgerEntry.build_id == build_id))
        assert [call.state for call in calls if call.kind == "judge"] == ["settled"], "it was paid once"
    assert len(await harness.events(build_id, "product_judged")) == 1


async def test_a_second_signal_ends_a_model_call_and_books_it(harness: WorkerHarness, stack: LocalStack) -> None:
    stalled = {"kind": "stall", "seconds": 3600, "times": None}
    async with worker_process(harness, stack, GRACEFUL_SHUTDOWN_SECONDS="3600") as worker:
        await worker.until("worker started")
        build_id = await harness.start(script=SMALL, faults=[stalled])
        await harness.until_event(build_id, "turn_started")
        worker.process.send_signal(signal.SIGTERM)
        await worker.until("worker stopping")
        assert worker.process.returncode is None
        worker.process.send_signal(signal.SIGINT)
        await worker.until("worker stopping at once")
        assert await worker.exit_code() == 0
    async with harness.session() as tx:
        calls = (await tx.session.scalars(select(LedgerEntry).where(LedgerEntry.build_id == build_id))).all()
    assert [call.state for call in calls] in (["settled"], ["estimated"]), "the call is still open"
    await harness.handle(build_id).terminate()
