"""Measure what a turn of one model call and one tool call costs at several build lengths, next to a plain loop.

Wall time comes from the database's timestamps and CPU time from the worker's process, both between two idle turns of
the agent. The rehearsal model reports the model's time; the plain loop measures the tool's.
"""

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import select
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from bench.conversation import script
from bench.deployment import BenchStack, Process, bench_stack
from bench.plain import run_plainly
from clients.temporal import DATA_CONVERTER
from db.models import Build, LedgerEntry, Prompt, ToolCall, Turn
from domain.names import build_workflow_id
from domain.status import CLOSED, Status
from tests.harness.history import chain_of, shares_of
from tests.harness.worker import WorkerHarness
from workflows.build import BuildWorkflow

_LOOK_SECONDS = 0.1
"""Seconds between two looks at the database."""

PLAN_BUDGET = 10**12
"""Budget of the benchmark's plan in microdollars: every check runs, and none refuses."""


@dataclass(frozen=True)
class TurnCost:
    """Figures of a build of `turns` turns. Times are milliseconds a turn, and sizes bytes a turn, unless noted."""

    turns: int
    wall: float
    model: float
    plain_wall: float
    plain_model: float
    plain_tool: float
    worker_cpu: float
    plain_cpu: float
    history_events: float
    history_bytes: float
    runs: int
    conversation_bytes: float
    database_bytes: float
    replay_ms: float
    """Milliseconds to replay the whole chain."""
    worker_peak_mb: float

    @property
    def beyond_plain(self) -> float:
        """Wall time beyond the plain loop's."""
        return self.wall - self.plain_wall

    @property
    def beyond_model_and_tool(self) -> float:
        """Wall time beyond the model server's own time and the tool's time in the plain loop."""
        return self.wall - self.model - self.plain_tool

    @property
    def cpu_beyond_plain(self) -> float:
        """The worker's CPU time beyond that of the plain loop's process, which talks to the same servers."""
        return self.worker_cpu - self.plain_cpu

    @property
    def bytes_per_byte(self) -> float:
        """Database bytes for each byte of conversation."""
        return self.database_bytes / self.conversation_bytes

    def figures(self) -> dict[str, Any]:
        """All figures, for JSON."""
        derived = ("beyond_plain", "beyond_model_and_tool", "cpu_beyond_plain", "bytes_per_byte")
        return asdict(self) | {name: getattr(self, name) for name in derived}


async def measure(sizes: Sequence[int]) -> list[TurnCost]:
    """Measure each size once, small ones first, on one stack and one worker that a small build has warmed up."""
    async with bench_stack() as bench, bench.workers() as [worker]:
        plan = await bench.harness.plan(PLAN_BUDGET)
        await _durable(bench, worker, plan, 4)
        return [await _both(bench, worker, plan, turns) for turns in sorted(sizes)]


async def _both(bench: BenchStack, worker: Process, plan: str, turns: int) -> TurnCost:
    durable = await _durable(bench, worker, plan, turns)
    async with bench.harness.session() as tx:
        prompt = await tx.session.get_one(Prompt, (durable.build_id, 0))
        model = await tx.session.scalar(select(Build.model).where(Build.id == durable.build_id))
    plain = await run_plainly(bench.harness.settings, model=model or "", system=prompt.system, tools=prompt.tools)
    measured = plain[1:-1]
    if len(measured) != turns:
        raise ValueError(
            f"A conversation of {turns} turns does not fit the model's window. A build is compacted, the plain loop is "
            "not: measure fewer turns."
        )
    count = len(await _calls_of(bench.harness, durable.build_id))
    assert count == turns + 2, "every turn makes one call"
    chain = await chain_of(bench.harness.client, str(durable.build_id))
    shares = [share for events in chain for share in shares_of(events)]
    return TurnCost(
        turns=turns,
        wall=durable.wall_seconds / turns * 1000,
        model=await _served_seconds(bench.harness, durable.build_id, turns) / turns * 1000,
        plain_wall=(measured[-1].ended - plain[0].ended) / turns * 1000,
        plain_model=sum(turn.model_seconds for turn in measured) / turns * 1000,
        plain_tool=sum(turn.tool_seconds for turn in measured) / turns * 1000,
        worker_cpu=durable.cpu_seconds / turns * 1000,
        plain_cpu=(measured[-1].cpu_ended - plain[0].cpu_ended) / turns * 1000,
        history_events=sum(share.events for share in shares) / len(shares),
        history_bytes=sum(share.bytes for share in shares) / len(shares),
        runs=len(chain),
        conversation_bytes=durable.conversation_bytes / turns,
        database_bytes=durable.database_bytes / turns,
        replay_ms=await _replay_ms(durable.build_id, chain),
        worker_peak_mb=worker.usage().peak_bytes / 1e6,
    )


@dataclass(frozen=True)
class _Durable:
    build_id: uuid.UUID
    wall_seconds: float
    cpu_seconds: float
    database_bytes: int
    conversation_bytes: int


async def _durable(bench: BenchStack, worker: Process, plan: str, turns: int) -> _Durable:
    """Run a build of `turns` turns between two idle turns; cancel it in the second, and return once it is closed."""
    harness = bench.harness
    user_id = await harness.founder(plan)
    size = await bench.database_bytes()
    build_id = await harness.start(user_id, script=script(turns))
    await _until_intended(harness, build_id, 1)
    before = worker.usage()
    await _until_intended(harness, build_id, turns + 2)
    after = worker.usage()
    end_size = await bench.database_bytes()
    calls = await _calls_of(harness, build_id)
    async with harness.session() as tx:
        end = await tx.session.scalar(
            select(Turn.claimed_at).where(Turn.build_id == build_id, Turn.number == turns + 2)
        )
    start = calls[0].done_at
    assert start is not None
    assert end is not None
    await harness.builds.cancel(build_id)
    await harness.until(build_id, frozenset({Status.CANCELLED}))
    return _Durable(
        build_id,
        wall_seconds=(end - start).total_seconds(),
        cpu_seconds=after.cpu_seconds - before.cpu_seconds,
        database_bytes=end_size - size,
        conversation_bytes=await bench.conversation_bytes([build_id]),
    )


async def _until_intended(harness: WorkerHarness, build_id: uuid.UUID, turn: int) -> None:
    """Wait until the turn's tool call is with the sandbox, so that the worker only waits for its result."""
    query = select(Build.status, ToolCall.state).join(
        ToolCall, (ToolCall.build_id == Build.id) & (ToolCall.turn == turn), isouter=True
    )
    while True:
        async with harness.session() as tx:
            status, state = (await tx.session.execute(query.where(Build.id == build_id))).one()
        if state == "intended":
            await asyncio.sleep(_LOOK_SECONDS)  # let the worker become idle
            return
        if state == "done" or status in {*CLOSED, Status.NEEDS_INPUT, Status.SLEEPING}:
            raise RuntimeError(
                f"build {build_id} is {status} and turn {turn}'s call is {state}; expected it to be running"
            )
        await asyncio.sleep(_LOOK_SECONDS)


async def _calls_of(harness: WorkerHarness, build_id: uuid.UUID) -> Sequence[ToolCall]:
    query = select(ToolCall).where(ToolCall.build_id == build_id).order_by(ToolCall.turn, ToolCall.position)
    async with harness.session() as tx:
        return (await tx.session.scalars(query)).all()


async def _served_seconds(harness: WorkerHarness, build_id: uuid.UUID, turns: int) -> float:
    """Return the seconds that the model's server reports for the turns between the idle ones."""
    query = select(LedgerEntry.request_id).where(
        LedgerEntry.build_id == build_id,
        LedgerEntry.turn > 1,
        LedgerEntry.turn <= turns + 1,
        LedgerEntry.kind == "turn",
    )
    async with harness.session() as tx:
        request_ids = set(await tx.session.scalars(query))
    seconds = [line["seconds"] for line in await harness.served() if line["request_id"] in request_ids]
    assert len(seconds) == turns, "the server served each call once"
    return float(sum(seconds))


async def _replay_ms(build_id: uuid.UUID, chain: Sequence[Any]) -> float:
    """Return the milliseconds that a worker without a cache takes to replay all runs of the build's chain.

    As a worker does it: `cofounder replay` does so in the SDK's sandbox, and takes twice as long (ADR 0005).
    """
    replayer = Replayer(
        workflows=[BuildWorkflow], data_converter=DATA_CONVERTER, workflow_runner=UnsandboxedWorkflowRunner()
    )
    began = time.monotonic()
    for events in chain:
        await replayer.replay_workflow(WorkflowHistory(build_workflow_id(build_id), events))
    return (time.monotonic() - began) * 1000
