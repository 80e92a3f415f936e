"""What a turn of one model call and one tool call costs, however long the build, beside the same turns in a plain loop.

Wall time is taken from the database's own stamps and CPU time from the worker's process, both between two pauses of the
agent; the model's time is what the rehearsal model says that it took, the tool's is measured in the plain loop.
"""

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import select
from temporalio.client import WorkflowHistory

from bench.conversation import script
from bench.flat import chain_of, shares_of
from bench.ground import Ground, Process, ground
from bench.plain import run_plainly
from cli.replay import replay_history
from db.models import Build, LedgerEntry, Prompt, ToolCall, Turn
from domain.names import build_workflow_id
from domain.status import CLOSED, Status
from tests.workshop import Workshop

_LOOK_SECONDS = 0.1
PLAN_BUDGET = 10**12
"""Of a plan that every check is made for and nothing is refused; in microdollars."""


@dataclass(frozen=True)
class TurnCost:
    """Figures of a build of so many turns. Times are milliseconds a turn unless said otherwise."""

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
    """Of the whole chain."""
    worker_peak_mb: float

    @property
    def beyond_plain(self) -> float:
        """Wall time beyond the plain loop's."""
        return self.wall - self.plain_wall

    @property
    def beyond_model_and_tool(self) -> float:
        """Wall time beyond what the model server says it took and the tool takes in the plain loop."""
        return self.wall - self.model - self.plain_tool

    @property
    def cpu_beyond_plain(self) -> float:
        """The worker's CPU time beyond that of the process with the plain loop, which talks to the same servers."""
        return self.worker_cpu - self.plain_cpu

    @property
    def bytes_per_byte(self) -> float:
        """Database bytes for each byte of conversation."""
        return self.database_bytes / self.conversation_bytes

    def figures(self) -> dict[str, Any]:
        """All of them, for JSON."""
        derived = ("beyond_plain", "beyond_model_and_tool", "cpu_beyond_plain", "bytes_per_byte")
        return asdict(self) | {name: getattr(self, name) for name in derived}


async def measure(sizes: Sequence[int]) -> list[TurnCost]:
    """Each size once, the small ones first, on one stack and one worker that has made a small build before."""
    async with ground() as at, at.workers() as [worker]:
        plan = await at.shop.plan(PLAN_BUDGET)
        await _durable(at, worker, plan, 4)
        return [await _both(at, worker, plan, turns) for turns in sorted(sizes)]


async def _both(at: Ground, worker: Process, plan: str, turns: int) -> TurnCost:
    durable = await _durable(at, worker, plan, turns)
    async with at.shop.session() as session:
        prompt = await session.get_one(Prompt, (durable.build_id, 0))
        model = await session.scalar(select(Build.model).where(Build.id == durable.build_id))
    plainly = await run_plainly(at.shop.settings, model=model or "", system=prompt.system, tools=prompt.tools)
    measured = plainly[1:-1]
    assert len(measured) == turns, "the plain loop makes the same turns"
    count = len(await _calls_of(at.shop, durable.build_id))
    assert count == turns + 2, "every turn makes one call"
    chain = await chain_of(at.shop.client, str(durable.build_id))
    shares = [share for events in chain for share in shares_of(events)]
    return TurnCost(
        turns=turns,
        wall=durable.wall_seconds / turns * 1000,
        model=await _served_seconds(at.shop, durable.build_id, turns) / turns * 1000,
        plain_wall=(measured[-1].ended - plainly[0].ended) / turns * 1000,
        plain_model=sum(turn.model_seconds for turn in measured) / turns * 1000,
        plain_tool=sum(turn.tool_seconds for turn in measured) / turns * 1000,
        worker_cpu=durable.cpu_seconds / turns * 1000,
        plain_cpu=(measured[-1].cpu_ended - plainly[0].cpu_ended) / turns * 1000,
        history_events=sum(share.events for share in shares) / len(shares),
        history_bytes=sum(share.bytes for share in shares) / len(shares),
        runs=len(chain),
        conversation_bytes=durable.conversation_bytes / turns,
        database_bytes=durable.database_bytes / turns,
        replay_ms=await _replay_ms(durable.build_id, chain),
        worker_peak_mb=worker.used().peak_bytes / 1e6,
    )


@dataclass(frozen=True)
class _Durable:
    build_id: uuid.UUID
    wall_seconds: float
    cpu_seconds: float
    database_bytes: int
    conversation_bytes: int


async def _durable(at: Ground, worker: Process, plan: str, turns: int) -> _Durable:
    """A build of so many turns between two pauses; cancelled after the second, and closed when this returns."""
    shop = at.shop
    user_id = await shop.founder(plan)
    size = await at.database_bytes()
    build_id = await shop.start(user_id, script=script(turns))
    await _until_intended(shop, build_id, 1)
    before = worker.used()
    await _until_intended(shop, build_id, turns + 2)
    after = worker.used()
    grown = await at.database_bytes()
    calls = await _calls_of(shop, build_id)
    async with shop.session() as session:
        begun = await session.scalar(select(Turn.claimed_at).where(Turn.build_id == build_id, Turn.number == turns + 2))
    assert begun is not None
    first = calls[0].done_at
    assert first is not None
    await shop.builds.cancel(build_id)
    await shop.until(build_id, frozenset({Status.CANCELLED}))
    return _Durable(
        build_id,
        wall_seconds=(begun - first).total_seconds(),
        cpu_seconds=after.cpu_seconds - before.cpu_seconds,
        database_bytes=grown - size,
        conversation_bytes=await at.conversation_bytes([build_id]),
    )


async def _until_intended(shop: Workshop, build_id: uuid.UUID, turn: int) -> None:
    """Wait until the turn's tool call has been given to the sandbox; then the worker waits for its answer."""
    query = select(Build.status, ToolCall.state).join(
        ToolCall, (ToolCall.build_id == Build.id) & (ToolCall.turn == turn), isouter=True
    )
    while True:
        async with shop.session() as session:
            status, state = (await session.execute(query.where(Build.id == build_id))).one()
        if state == "intended":
            await asyncio.sleep(_LOOK_SECONDS)  # until it has come to rest
            return
        if state == "done" or status in {*CLOSED, Status.NEEDS_INPUT, Status.SLEEPING}:
            raise RuntimeError(f"build {build_id} is {status} where turn {turn} was waited for; its call is {state}")
        await asyncio.sleep(_LOOK_SECONDS)


async def _calls_of(shop: Workshop, build_id: uuid.UUID) -> Sequence[ToolCall]:
    query = select(ToolCall).where(ToolCall.build_id == build_id).order_by(ToolCall.turn, ToolCall.position)
    async with shop.session() as session:
        return (await session.scalars(query)).all()


async def _served_seconds(shop: Workshop, build_id: uuid.UUID, turns: int) -> float:
    """How long the model's server says that it took for the turns between the pauses."""
    query = select(LedgerEntry.request_id).where(
        LedgerEntry.build_id == build_id, LedgerEntry.turn > 1, LedgerEntry.turn <= turns + 1
    )
    async with shop.session() as session:
        asked = set(await session.scalars(query))
    served = [line["seconds"] for line in await shop.served() if line["request_id"] in asked]
    assert len(served) == turns, "the server has served each call once"
    return float(sum(served))


async def _replay_ms(build_id: uuid.UUID, chain: Sequence[Any]) -> float:
    """How long a worker without a cache takes to get the build back: all runs of its chain."""
    began = time.monotonic()
    for events in chain:
        result = await replay_history(WorkflowHistory(build_workflow_id(build_id), events))
        assert result.replays, result.problem
    return (time.monotonic() - began) * 1000
