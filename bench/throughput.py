"""How many builds of 25 turns get done in a minute when many run at once, with one worker and with two.

Counted is from the first build's start until the last one's last turn is done, opening its sandbox included. The ends,
snapshots and released sandboxes, are counted apart.
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
from bench.ground import Ground, ground
from bench.turns import PLAN_BUDGET
from db.models import Build, ToolCall

_LOOK_SECONDS = 0.25
_SPARE_SANDBOXES = 20
_REST_SECONDS = 50
"""Builds that are done do nothing while others are not."""


@dataclass(frozen=True)
class Throughput:
    """So many builds at once, with so many workers."""

    builds: int
    workers: int
    turns: int
    seconds: float
    """From the first start to the last turn's end."""
    closing_seconds: float
    """From then until all are cancelled, snapshotted and closed, and their sandboxes gone."""
    worker_cpu_per_turn: float
    """Milliseconds, all workers together, opening the sandbox included."""
    cpu_by_part: dict[str, float]
    """Milliseconds a turn of each server of the stack; the sandboxes' commands are with the sandbox server."""
    busy: float
    """The share of the machine's cores that was in use, by whomever."""
    peak_mb: float
    """Of the largest worker."""
    conversation_bytes: float
    """A turn."""
    database_bytes: float
    """A turn, with all that belongs to the builds."""

    @property
    def per_minute(self) -> float:
        """Builds a minute."""
        return self.builds * 60 / self.seconds

    @property
    def bytes_per_byte(self) -> float:
        """Database bytes for each byte of conversation."""
        return self.database_bytes / self.conversation_bytes

    def figures(self) -> dict[str, Any]:
        """All of them, for JSON."""
        return asdict(self) | {name: getattr(self, name) for name in ("per_minute", "bytes_per_byte")}


async def measure(counts: Sequence[int], workers: Sequence[int], turns: int) -> list[Throughput]:
    """Each count with each number of workers, every time on a stack of its own."""
    return [await _one(count, number, turns) for number in workers for count in counts]


async def _one(count: int, workers: int, turns: int) -> Throughput:
    async with ground(max_sandboxes=count + _SPARE_SANDBOXES) as at, at.workers(workers) as processes:
        shop = at.shop
        plan = await shop.plan(PLAN_BUDGET)
        mark = f"bench-{uuid.uuid4()}"
        await shop.rehearse("scripts", {"match": mark, "script": script(turns, pause=0, rest=_REST_SECONDS)})
        projects = []
        for _ in range(count):
            user_id = await shop.founder(plan)
            projects.append((user_id, await shop.project(user_id)))
        size = await at.database_bytes()
        before, parts, busy = [process.used() for process in processes], at.cpu_by_part(), _busy_seconds()
        looked = time.monotonic()
        builds = await asyncio.gather(
            *(shop.start(user_id, project_id=project, goal=mark) for user_id, project in projects)
        )
        ended = await _all_done(at, builds, turns)
        after = [process.used() for process in processes]
        used = {part: seconds - parts[part] for part, seconds in at.cpu_by_part().items()}
        busy = (_busy_seconds() - busy) / (time.monotonic() - looked) / len(os.sched_getaffinity(0))
        grown = await at.database_bytes()
        async with shop.session() as session:
            began = await session.scalar(select(func.min(Build.created_at)).where(Build.id.in_(builds)))
        assert began is not None
        await asyncio.gather(*(shop.builds.cancel(build_id) for build_id in builds))
        closed = await _all_closed(at, builds)
        cpu = sum(later.cpu_seconds - earlier.cpu_seconds for later, earlier in zip(after, before, strict=True))
        return Throughput(
            builds=count,
            workers=workers,
            turns=turns,
            seconds=(ended - began).total_seconds(),
            closing_seconds=(closed - ended).total_seconds(),
            worker_cpu_per_turn=cpu / count / turns * 1000,
            cpu_by_part={part: seconds / count / turns * 1000 for part, seconds in used.items()},
            busy=busy,
            peak_mb=max(process.used().peak_bytes for process in processes) / 1e6,
            conversation_bytes=await at.conversation_bytes(builds) / count / turns,
            database_bytes=(grown - size) / count / turns,
        )


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


async def _all_done(at: Ground, builds: Sequence[uuid.UUID], turns: int) -> datetime:
    """When the last build's last turn was done."""
    done = ToolCall.build_id.in_(builds) & (ToolCall.turn == turns) & (ToolCall.state == "done")
    return await _last(at, select(func.count(), func.max(ToolCall.done_at)).where(done), len(builds))


async def _all_closed(at: Ground, builds: Sequence[uuid.UUID]) -> datetime:
    closed = Build.id.in_(builds) & Build.closed_at.is_not(None)
    return await _last(at, select(func.count(), func.max(Build.closed_at)).where(closed), len(builds))


async def _last(at: Ground, query: Select[int, datetime | None], count: int) -> datetime:
    """The latest time that the query knows, once it counts so many."""
    while True:
        async with at.shop.session() as session:
            found, last = (await session.execute(query)).one()
        if found == count and last is not None:
            return last
        await asyncio.sleep(_LOOK_SECONDS)
