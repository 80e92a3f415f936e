"""`python worker.py` as operators run it: several at once, stopped in the middle of a tool call."""

import asyncio
import json
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from temporalio.client import WorkflowFailureError

from clients.sandbox import Sandboxes, sandbox_config
from clients.temporal import connect_temporal
from db.models import ToolCall
from db.session import make_engine, make_sessions
from domain.names import preview_workflow_id
from domain.status import Status
from local.stack import LocalStack
from tests.harness.scripts import PRODUCT, bash, steps
from tests.harness.wait import DEADLINE, wait_until
from tests.harness.worker import WorkerHarness, settings_of

ROOT = Path(__file__).parents[2]


@dataclass
class RunningWorker:
    """A worker in a process of its own, and its log so far."""

    process: asyncio.subprocess.Process
    logged: list[dict[str, Any]] = field(default_factory=list)

    async def until(self, event: str) -> dict[str, Any]:
        """Read the log until the event appears; every line must be a JSON object."""
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.logged.append(json.loads(line))
            if self.logged[-1]["event"] == event:
                return self.logged[-1]
        raise AssertionError(self.logged)

    async def stop(self) -> int:
        """Stop the process as a supervisor does, and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        with suppress(AssertionError):
            await self.until("the end of the log")
        return await asyncio.wait_for(self.process.wait(), DEADLINE)


@asynccontextmanager
async def worker_process(harness: WorkerHarness, stack: LocalStack) -> AsyncIterator[RunningWorker]:
    """Start a worker, and kill it at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "worker.py",
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            **stack.environment,
            "TEMPORAL_TASK_QUEUE": harness.settings.temporal_task_queue,
            "GRACEFUL_SHUTDOWN_SECONDS": "1",
        },
        stderr=asyncio.subprocess.PIPE,
        limit=2**20,
    )
    try:
        yield RunningWorker(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.fixture
async def harness(stack: LocalStack) -> AsyncIterator[WorkerHarness]:
    """A harness without a worker, on a task queue of its own."""
    settings = settings_of(stack, temporal_task_queue=f"test-{uuid.uuid4()}")
    engine = make_engine(settings.database_url)
    assert settings.anthropic_base_url is not None
    yield WorkerHarness(
        settings, await connect_temporal(stack.environment), make_sessions(engine), settings.anthropic_base_url
    )
    await engine.dispose()


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
