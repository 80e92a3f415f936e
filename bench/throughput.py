"""Measure how many builds of 25 turns finish in a minute when many run at once, with one worker and with two.

The time runs from the first build's start until the last turn of the last build is done, and includes opening the
sandboxes. Closing the builds, with snapshots and released sandboxes, is timed separately.
"""

import asyncio
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import psutil
from sqlalchemy import Select, func, select

from bench.conversation import script
from bench.deployment import BenchStack, bench_stack
from bench.turns import PLAN_BUDGET
from db.models import Build, ToolCall

_LOOK_SECONDS = 0.25
"""Seconds between two looks at the database."""

_SPARE_SANDBOXES = 20
"""Sandboxes that the server allows beyond one a build."""

_REST_SECONDS = 50
"""Seconds that a build idles after its last turn, so that those that finish early do no work while others run."""


@dataclass(frozen=True)
class Throughput:
    """Figures of `builds` builds at once with `workers` workers."""

    builds: int
    workers: int
    turns: int
    seconds: float
    """From the first start to the last turn's end."""
    closing_seconds: float
    """From then until all are cancelled, snapshotted and closed, and their sandboxes gone."""
    worker_cpu_per_turn: float
    """CPU milliseconds a turn of all workers together, opening the sandboxes included."""
    cpu_by_part: dict[str, float]
    """CPU milliseconds a turn of each server; the sandboxes' commands count as the sandbox server's."""
    busy: float
    """The share (0 to 1) of the machine's cores that was busy, other programs included."""
    peak_mb: float
    """Peak memory of the largest worker, in megabytes."""
    conversation_bytes: float
    """Bytes a turn."""
    database_bytes: float
    """Bytes a turn that all tables and indexes grew by."""

    @property
    def per_minute(self) -> float:
        """Builds a minute."""
        return self.builds * 60 / self.seconds

    @property
    def bytes_per_byte(self) -> float:
        """Database bytes for each byte of conversation."""
        return self.database_bytes / self.conversation_bytes

    def figures(self) -> dict[str, Any]:
        """All figures, for JSON."""
        return asdict(self) | {name: getattr(self, name) for name in ("per_minute", "bytes_per_byte")}


async def measure(counts: Sequence[int], workers: Sequence[int], turns: int) -> list[Throughput]:
    """Measure each count with each number of workers, each time on a stack of its own."""
    return [await _one(count, number, turns) for number in workers for count in counts]


async def _one(count: int, workers: int, turns: int) -> Throughput:
    async with bench_stack(max_sandboxes=count + _SPARE_SANDBOXES) as bench, bench.workers(workers) as processes:
        harness = bench.harness
        plan = await harness.plan(PLAN_BUDGET)
        mark = f"bench-{uuid.uuid4()}"
        await harness.rehearse("scripts", {"match": mark, "script": script(turns, pause=0, rest=_REST_SECONDS)})
        projects = []
        for _ in range(count):
            user_id = await harness.founder(plan)
            projects.append((user_id, await harness.project(user_id)))
        size = await bench.database_bytes()
        before, parts, busy = [process.usage() for process in processes], bench.cpu_by_part(), _busy_seconds()
        start = time.monotonic()
        builds = await asyncio.gather(
            *(harness.start(user_id, project_id=project, goal=mark) for user_id, project in projects)
        )
        ended = await _all_done(bench, builds, turns)
        after = [process.usage() for process in processes]
        cpu_by_part = {part: seconds - parts[part] for part, seconds in bench.cpu_by_part().items()}
        busy = (_busy_seconds() - busy) / (time.monotonic() - start) / len(os.sched_getaffinity(0))
        end_size = await bench.database_bytes()
        async with harness.session() as tx:
            began = await tx.session.scalar(select(func.min(Build.created_at)).where(Build.id.in_(builds)))
        assert began is not None
        await asyncio.gather(*(harness.builds.cancel(build_id) for build_id in builds))
        closed = await _all_closed(bench, builds)
        cpu = sum(later.cpu_seconds - earlier.cpu_seconds for later, earlier in zip(after, before, strict=True))
        return Throughput(
            builds=count,
            workers=workers,
            turns=turns,
            seconds=(ended - began).total_seconds(),
            closing_seconds=(closed - ended).total_seconds(),
            worker_cpu_per_turn=cpu / count / turns * 1000,
            cpu_by_part={part: seconds / count / turns * 1000 for part, seconds in cpu_by_part.items()},
            busy=busy,
            peak_mb=max(process.usage().peak_bytes for process in processes) / 1e6,
            conversation_bytes=await bench.conversation_bytes(builds) / count / turns,
            database_bytes=(end_size - size) / count / turns,
        )


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


async def _all_done(bench: BenchStack, builds: Sequence[uuid.UUID], turns: int) -> datetime:
    """Wait until every build's last turn is done; return when the last one was."""
    done = ToolCall.build_id.in_(builds) & (ToolCall.turn == turns) & (ToolCall.state == "done")
    return await _last(bench, select(func.count(), func.max(ToolCall.done_at)).where(done), len(builds))


async def _all_closed(bench: BenchStack, builds: Sequence[uuid.UUID]) -> datetime:
    closed = Build.id.in_(builds) & Build.closed_at.is_not(None)
    return await _last(bench, select(func.count(), func.max(Build.closed_at)).where(closed), len(builds))


async def _last(bench: BenchStack, query: Select[int, datetime | None], count: int) -> datetime:
    """Return the latest time of the query once it counts `count` rows."""
    while True:
        async with bench.harness.session() as tx:
            rows, last = (await tx.session.execute(query)).one()
        if rows == count and last is not None:
            return last
        await asyncio.sleep(_LOOK_SECONDS)
