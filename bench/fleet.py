"""Measure a fleet: many builds that work at once, on real Temporal, PostgreSQL and workers, and where its walls are.

    python -m bench.fleet [--builds 1000] [--think 30] [--seconds 120] [--workers 2]

A build takes a turn every `--think` seconds and a bit: the model's stand-in takes that long to answer. A shorter time
puts the load of more builds on the same machine. Sandboxes are empty (`bench/empty_sandboxes.py`): they answer as E2B
does and run nothing, so gates, archives and looks are not measured. Nor is the object store: no snapshot is taken.

Prints what the fleet did in a window of `--seconds` in which every build had begun to work, and from that the table of
walls (`bench/walls.py`), for builds that take a turn every 30 seconds. With JSON=path in the environment it also writes
the figures to that file.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import psutil
from sqlalchemy import func, select, text

from bench.conversation import script
from bench.deployment import BenchStack, Process, bench_stack
from bench.empty_sandboxes import READY
from bench.machine import machine
from bench.turns import PLAN_BUDGET
from bench.walls import Turn, table, walls
from db.models import Turn as TurnRow
from tests.harness.history import TurnShare, chain_of, shares_of

STARTS_AT_ONCE = 8
"""Builds that are started at the same time."""

USUAL_TURN_SECONDS = 30.0
"""A turn of a real build; the table of walls is for it."""

_BEGUN_WITHIN = 1800.0
"""Give up if not every build has taken its first turns by then. In seconds."""

_MANY_TURNS = 10_000

_EVENTS_OF = 5
"""Builds whose history is read at the end."""

_DATABASE = text(
    """
    select xact_commit, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint, pg_database_size(datname),
        (select count(*) from pg_stat_activity where datname = current_database())
    from pg_stat_database where datname = current_database()
    """
)


@dataclass(frozen=True)
class Reading:
    """Counters at one moment. Seconds, bytes and numbers since the servers' start."""

    at: float
    commits: int
    wal: int
    size: int
    connections: int
    actions: float
    requests: float
    store: int
    cpu: Mapping[str, float]


@dataclass(frozen=True)
class Fleet:
    """What a fleet did in a window."""

    builds: int
    workers: int
    think_seconds: float
    seconds: float
    turns: int
    connections: int
    """To PostgreSQL, at the window's end."""
    busy: float
    """The share of the machine's cores that was busy, other programs included."""
    turn: Turn

    @property
    def turns_per_second(self) -> float:
        """Turns a second of all builds."""
        return self.turns / self.seconds


async def measure(builds: int, workers: int, think: float, seconds: float) -> Fleet:
    """Start the builds, wait until all of them work, and look at a window of this many seconds."""
    options = ("--think-ms", str(round(think * 1000)))
    metrics_port = _free_port()
    stack = bench_stack(
        parts=("postgres", "temporal", "s3", "model"), model_options=options, port_of={"temporal.metrics": metrics_port}
    )
    async with stack as bench, _empty_sandboxes(bench) as (sandboxes, variables):
        slots = str(max(100, 2 * builds // workers))
        async with bench.workers(workers, **variables, MAX_ACTIVITIES=slots) as processes:
            ids = await _start(bench, builds)
            await _until_all_work(bench, ids)
            before, busy = await _read(bench, processes, sandboxes, metrics_port), psutil.cpu_times()
            began = datetime.now(UTC)
            await asyncio.sleep(seconds)
            after, busy_after = await _read(bench, processes, sandboxes, metrics_port), psutil.cpu_times()
            turns = await _turns_between(bench, began, datetime.now(UTC))
            events = [share.events for share in await _shares(bench, ids[:_EVENTS_OF])]
    took = after.at - before.at

    def per_turn(name: str) -> float:
        return float(getattr(after, name) - getattr(before, name)) / max(1, turns)

    def cpu_of(part: str) -> float:
        return (after.cpu[part] - before.cpu[part]) / max(1, turns) * 1000

    turn = Turn(
        seconds=builds * took / max(1, turns),
        actions=per_turn("actions"),
        requests=per_turn("requests"),
        history_events=sum(events) / max(1, len(events)),
        commits=per_turn("commits"),
        wal_bytes=per_turn("wal"),
        table_bytes=per_turn("size"),
        store_bytes=per_turn("store"),
        worker_ms=cpu_of("workers"),
        temporal_ms=cpu_of("temporal"),
        postgres_ms=cpu_of("postgres"),
        busy_slots=1.0,
    )
    used = sum(getattr(busy_after, each) - getattr(busy, each) for each in ("user", "nice", "system"))
    cores = len(os.sched_getaffinity(0))
    return Fleet(builds, workers, think, took, turns, after.connections, used / took / cores, turn)


async def _start(bench: BenchStack, builds: int) -> Sequence[uuid.UUID]:
    harness, mark = bench.harness, f"bench-{uuid.uuid4()}"
    plan = await harness.plan(PLAN_BUDGET)
    await harness.rehearse("scripts", {"match": mark, "script": script(_MANY_TURNS, pause=0)})
    at_once = asyncio.Semaphore(STARTS_AT_ONCE)

    async def start() -> uuid.UUID:
        async with at_once:
            return await harness.start(await harness.founder(plan), goal=mark)

    return await asyncio.gather(*(start() for _ in range(builds)))


async def _until_all_work(bench: BenchStack, builds: Sequence[uuid.UUID]) -> None:
    """Wait until each has answered its second turn."""
    query = select(func.count(func.distinct(TurnRow.build_id))).where(
        TurnRow.number >= 2, TurnRow.answered_at.is_not(None)
    )
    async with asyncio.timeout(_BEGUN_WITHIN):
        while True:
            async with bench.harness.session() as tx:
                if await tx.session.scalar(query) == len(builds):
                    return
            await asyncio.sleep(1)


async def _turns_between(bench: BenchStack, first: datetime, last: datetime) -> int:
    query = select(func.count()).where(TurnRow.answered_at > first, TurnRow.answered_at <= last)
    async with bench.harness.session() as tx:
        return int(await tx.session.scalar(query) or 0)


async def _shares(bench: BenchStack, builds: Sequence[uuid.UUID]) -> list[TurnShare]:
    chains = [await chain_of(bench.harness.client, str(build_id)) for build_id in builds]
    return [share for chain in chains for events in chain for share in shares_of(events)]


async def _read(bench: BenchStack, workers: Sequence[Process], sandboxes: Process, metrics_port: int) -> Reading:
    async with bench.harness.session() as tx:
        commits, wal, size, connections = (await tx.session.execute(_DATABASE)).one()
    actions, requests = await _counted_by_temporal(metrics_port)
    cpu = bench.cpu_by_part() | {
        "workers": sum(worker.usage().cpu_seconds for worker in workers),
        "sandboxes": sandboxes.usage().cpu_seconds,
    }
    store = sum(each.stat().st_size for each in bench.servers.directory("s3").rglob("*") if each.is_file())
    return Reading(time.monotonic(), commits, wal, size, connections, actions, requests, store, cpu)


@asynccontextmanager
async def _empty_sandboxes(bench: BenchStack) -> AsyncIterator[tuple[Process, dict[str, str]]]:
    """Run the stand-in for sandboxes; yields it, and the variables that point workers to it."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    async with bench.program(["-m", "bench.empty_sandboxes", "--port", str(port)], {}) as process:
        await process.wait_for_log(READY)
        # E2B's HTTP/2 takes a hundred streams on each connection; over this plain HTTP each session has its own.
        connections = {"E2B_MAX_CONNECTIONS": "4000"}
        yield process, {"E2B_API_KEY": f"e2b_{'0' * 40}", "E2B_API_URL": url, "E2B_SANDBOX_URL": url, **connections}


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def _counted_by_temporal(port: int) -> tuple[float, float]:
    """Actions, as its cloud bills them, and requests to the frontend, both since the server's start."""
    async with httpx2.AsyncClient(timeout=60) as http:
        text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
    counted = {"action{": 0.0, "service_requests{": 0.0}
    for line in text.splitlines():
        for name in counted:
            if (
                line.startswith(name)
                and 'service_name="frontend"' in line
                and 'namespace="temporal_system"' not in line
            ):
                counted[name] += float(line.rpartition(" ")[2])
    return counted["action{"], counted["service_requests{"]


def _print(fleet: Fleet) -> None:
    turn, cores = fleet.turn, len(os.sched_getaffinity(0))
    print(f"{datetime.now(UTC):%Y-%m-%d}:", ", ".join(f"{name} {value}" for name, value in machine().items()))
    print(
        f"{fleet.builds:,} builds, {fleet.workers} workers, {fleet.think_seconds:g} s of thinking a turn; in "
        f"{fleet.seconds:.0f} s {fleet.turns:,} turns, {fleet.turns_per_second:.1f} a second, one of each build every "
        f"{turn.seconds:.1f} s. {fleet.connections} connections to PostgreSQL; {cores} cores {fleet.busy:.0%} busy."
    )
    print("\n| | a turn | a second |\n| --- | --: | --: |")
    for name, value, unit in (
        ("Temporal actions", turn.actions, ""),
        ("requests to Temporal", turn.requests, ""),
        ("history events", turn.history_events, ""),
        ("commits", turn.commits, ""),
        ("WAL", turn.wal_bytes / 1000, " KB"),
        ("growth of tables and indexes", turn.table_bytes / 1000, " KB"),
        ("growth of the object store", turn.store_bytes / 1000, " KB"),
        ("CPU of the workers", turn.worker_ms, " ms"),
        ("CPU of Temporal", turn.temporal_ms, " ms"),
        ("CPU of PostgreSQL", turn.postgres_ms, " ms"),
    ):
        print(f"| {name} | {value:,.1f}{unit} | {value * fleet.turns_per_second:,.1f}{unit} |")
    print()
    table(walls(replace(turn, seconds=USUAL_TURN_SECONDS)), print)


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--builds", type=int, default=1_000)
    parser.add_argument("--think", type=float, default=30.0, help="seconds that the model takes for a turn")
    parser.add_argument("--seconds", type=float, default=120.0, help="length of the window")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    fleet = asyncio.run(measure(options.builds, options.workers, options.think, options.seconds))
    _print(fleet)
    if path := os.environ.get("JSON"):
        Path(path).write_text(json.dumps(asdict(fleet), indent=1) + "\n")


if __name__ == "__main__":
    main()
