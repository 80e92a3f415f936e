"""More builds than sandboxes: the rest waits its turn, no one is asked, and no more sandboxes run than may."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import func, select, text

from activities.runtime.crash_point import CrashPoint
from clients.browser import Browser
from clients.sandbox import Role, Sandboxes, sandbox_config
from db.migrate import migrate
from db.models import Permit, Preview
from db.transaction import transaction
from domain.names import build_workflow_id
from domain.permits import PREVIEW_CLOSED
from domain.status import Status
from local.stack import LocalStack
from tests.harness.fault_waits import close_preview
from tests.harness.faults import FaultHarness, WorkerProcess, fault_harness
from tests.harness.repeats import assert_nothing_was_repeated
from tests.harness.reset import completed_tasks, reset, until_in
from tests.harness.scripts import HOLD, PRODUCT, SMALL, bash, hold, steps
from tests.harness.wait import DEADLINE, wait_until
from tests.harness.worker import WorkerHarness, worker_harness
from tests.workflows.scenarios import release_command

_LONGEST = 10 * DEADLINE


@dataclass
class Fleet:
    """A worker with a quota, on a sandbox server that enforces the same quota as E2B does."""

    harness: WorkerHarness
    sandboxes: Sandboxes
    quota: int
    peak: int = 0
    """The most sandboxes that were seen running at once."""
    started: float = field(default_factory=time.monotonic)

    async def watch(self) -> None:
        """Look again and again how many sandboxes run."""
        while True:
            listed = await self.sandboxes.list_all()
            self.peak = max(self.peak, sum(each.state == "running" for each in listed))
            await asyncio.sleep(0.1)

    async def ready(self, builds: Sequence[uuid.UUID], *, refused: bool | None = False) -> str:
        """Wait until all builds are ready, check what must hold, and return the figures.

        `refused`: whether the sandbox server is to refuse sandboxes. With a quota it has to only if an activity is
        replaced while it makes a sandbox, and its successor makes one, too. None if that may happen.
        """
        rows = await asyncio.gather(*(self.harness.finished(each, _LONGEST) for each in builds))
        assert [row.status for row in rows] == [Status.READY] * len(builds), [row.reason for row in rows]
        statuses = [await self.harness.statuses(each) for each in builds]
        waited = sum(Status.WAITING in each for each in statuses)
        assert not any(Status.NEEDS_INPUT in each for each in statuses), "someone was asked"
        async with transaction(self.harness.sessions) as tx:
            refused_at = await tx.session.scalar(text("select refused_at from sandbox_fleet"))
        is_as_expected = refused is None or (refused_at is not None) == refused
        assert is_as_expected, "whether the sandbox server had to refuse a sandbox"
        assert self.peak <= self.quota
        seconds = time.monotonic() - self.started
        return f"{len(builds)} builds ready after {seconds:.0f} s, {waited} waited, at most {self.peak} sandboxes ran"


@asynccontextmanager
async def fleet(quota: int, browser: Browser, **settings: Any) -> AsyncIterator[Fleet]:
    options = ("--max-running", str(quota))
    async with LocalStack(durable=False, temporal_ui=False, sandbox_options=options) as stack:
        await migrate(stack.environment["DATABASE_URL"])
        settings = {"sandbox_quota": quota, "reaper_seconds": 5} | settings
        async with worker_harness(stack, browser, **settings) as harness, watched(harness, quota) as running:
            yield running


@asynccontextmanager
async def watched(harness: WorkerHarness, quota: int) -> AsyncIterator[Fleet]:
    """Look how many sandboxes run while the block runs."""
    sandboxes = Sandboxes(sandbox_config(harness.settings))
    running = Fleet(harness, sandboxes, quota)
    watching = asyncio.create_task(running.watch())
    yield running
    watching.cancel()
    await asyncio.wait([watching])
    await sandboxes.close()


async def test_one_sandbox(browser: Browser, figure: Callable[[str], None]) -> None:
    """3 builds, and one sandbox for their workspaces, gates and previews."""
    async with fleet(1, browser) as one:
        figure(await one.ready([await one.harness.start(script=SMALL) for _ in range(3)]))


async def test_eight_builds(browser: Browser, figure: Callable[[str], None]) -> None:
    """D6: 8 builds, and a quota of 3 sandboxes."""
    async with fleet(3, browser) as three:
        figure(await three.ready([await three.harness.start(script=SMALL) for _ in range(8)]))


async def test_refused_by_the_service(browser: Browser, figure: Callable[[str], None]) -> None:
    """5 builds and no quota of ours, while the sandbox service refuses a third sandbox."""
    async with fleet(2, browser, sandbox_quota=None) as two:
        figure(await two.ready([await two.harness.start(script=SMALL) for _ in range(5)], refused=True))


async def test_all_at_the_gate(browser: Browser, figure: Callable[[str], None]) -> None:
    """3 builds, one sandbox, and each product fails its first check at the gate."""
    hollow = PRODUCT.replace("python3 -m unittest", "true")
    script = steps([bash(hollow)], [{"text": "Done."}], [bash(PRODUCT)])
    async with fleet(1, browser) as one:
        builds = [await one.harness.start(script=script) for _ in range(3)]
        figure(await one.ready(builds))
        for build_id in builds:
            assert await one.harness.events(build_id, "gate_bounced")


async def test_open_previews(browser: Browser, figure: Callable[[str], None]) -> None:
    """Three previews are open on 3 sandboxes, and five builds wait."""
    async with fleet(3, browser) as three:
        harness = three.harness
        shown = [await harness.start(script=SMALL) for _ in range(3)]
        await three.ready(shown)

        async def preview(build_id: uuid.UUID) -> Preview | None:
            async with harness.session() as tx:
                return await tx.session.get(Preview, build_id)

        async def are_open() -> bool:
            rows = [await preview(each) for each in shown]
            return all(row is not None and row.state == "open" for row in rows)

        await wait_until(are_open)
        three.started = time.monotonic()
        figure(await three.ready([await harness.start(script=SMALL) for _ in range(5)]))
        reasons = [row and (row.state, row.reason) for row in [await preview(each) for each in shown]]
        assert reasons == [("closed", PREVIEW_CLOSED)] * 3


async def test_reset_with_a_quota(browser: Browser, figure: Callable[[str], None]) -> None:
    """Two sandboxes: reset builds three times each, one in a command, one at the gate, one that waits."""
    at_gate = PRODUCT.replace('"check": "python3', f'"check": "{HOLD}; python3')
    async with fleet(2, browser) as two:
        harness = two.harness
        working = await harness.start(script=steps([hold()], [bash(PRODUCT)]))
        checked = await harness.start(script=steps([bash(at_gate)]))
        await harness.until_event(working, "tool_started")
        await harness.until_event(checked, "gate_step", count=3)
        waiting = await harness.start(script=SMALL)
        await harness.until(waiting, frozenset({Status.WAITING}))
        resets = [
            await _reset_thrice(harness, working, "dispatch_tool"),
            await _reset_thrice(harness, checked, "run_evidence_gate"),
            await _reset_thrice(harness, waiting),
        ]
        assert (await harness.row(waiting)).status == Status.WAITING
        await release_command(harness, working)
        await release_command(harness, checked, Role.GATE)
        builds = [working, checked, waiting]
        figures = await two.ready(builds, refused=None)
        for build_id in builds:
            await assert_nothing_was_repeated(harness, build_id)
            await close_preview(harness, build_id)
        async with harness.session() as tx:
            assert await tx.session.scalar(select(func.count()).select_from(Permit)) == 0
        figure(f"{figures}; {sum(resets)} resets, no permit is left")


async def _reset_thrice(harness: WorkerHarness, build_id: uuid.UUID, activity: str | None = None) -> int:
    """Reset a build to its first task, its middle and its last one, each time once it is in this activity, or idle.

    Returns how often.
    """
    workflow_id = build_workflow_id(build_id)

    async def until_there() -> None:
        await (until_in(harness.client, workflow_id, activity) if activity else harness.until_idle(build_id))

    await until_there()
    run_id = (await harness.handle(build_id).describe()).run_id
    tasks = await completed_tasks(harness.client, workflow_id)
    points = (tasks[0], tasks[len(tasks) // 2], tasks[-1])
    for task in points:
        await reset(harness.client, workflow_id, task, run_id)
        await until_there()
    return len(points)


async def test_fair_between_users(browser: Browser, figure: Callable[[str], None]) -> None:
    """One founder starts 4 builds on one sandbox, then another founder starts one."""
    async with fleet(1, browser) as one:
        user_id = await one.harness.founder()
        many = [await one.harness.start(user_id, script=SMALL) for _ in range(4)]
        for build_id in many[1:]:
            await one.harness.until(build_id, frozenset({Status.WAITING}))
        single = await one.harness.start(script=SMALL)
        # It stands in line once it waits. Builds that have ended by then were before it, and so is the one that runs.
        await one.harness.until(single, frozenset({Status.WAITING, Status.READY}))
        before = sum([(await one.harness.row(each)).closed_at is not None for each in many])
        figures = await one.ready([*many, single])
        closed = {each: (await one.harness.row(each)).closed_at for each in [*many, single]}
        place = sorted(closed, key=lambda each: str(closed[each])).index(single) + 1
        assert place <= before + 2
        figure(f"{figures}; the other founder's was number {place}")


async def test_replaced_sandboxes(browser: Browser, figure: Callable[[str], None]) -> None:
    """3 builds, one sandbox, which is replaced by another before its provider would end it."""
    script = steps([bash("echo kept > kept.txt; sleep 1.2")], [bash(f"cat kept.txt; {PRODUCT}")])
    async with fleet(1, browser, sandbox_max_seconds=2) as one:
        builds = [await one.harness.start(script=script) for _ in range(3)]
        figures = await one.ready(builds)
        causes = [event.data["reason"] for each in builds for event in await one.harness.events(each, "resumed")]
        replaced = sum("near the end of the time" in cause for cause in causes)
        assert replaced >= len(builds)
        figure(f"{figures}, {replaced} were replaced")


async def test_worker_killed(figure: Callable[[str], None]) -> None:
    """4 builds on 2 sandboxes; the worker is killed between a permit, its sandbox and what is recorded of them."""
    points: list[CrashPoint] = ["permit.taken", "workspace.made", "workspace.paused", "gate.recorded"]
    async with fault_harness(sandbox_options=("--max-running", "2")) as faults:
        harness = faults.harness()
        async with watched(harness, 2) as two:
            builds = [await harness.start(script=SMALL, prepare=partial(_kill_at, faults, point)) for point in points]
            working = asyncio.create_task(_keep_a_worker(faults, harness))
            figures = await two.ready(builds)
            working.cancel()
            await asyncio.wait([working])
        assert sorted(faults.crashed()) == sorted(points)
        figure(f"{figures}; killed {len(points)} times")


def _kill_at(faults: FaultHarness, point: CrashPoint, build_id: uuid.UUID) -> None:
    faults.ask(point, build_id, "kill")


async def _keep_a_worker(faults: FaultHarness, harness: WorkerHarness) -> None:
    """Start another worker whenever one was killed."""
    while True:
        faults.launch(harness, SANDBOX_QUOTA="2")
        await wait_until(_all_ended(faults.workers), seconds=_LONGEST)


def _all_ended(workers: Sequence[WorkerProcess]) -> Callable[[], bool]:
    return lambda: not any(worker.is_running for worker in workers)
