"""Deploys in the middle of builds: workers of two versions side by side, killed again and again, and a roll-back."""

import asyncio
import json
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import select

from clients.deployments import Deployments
from clients.temporal import connect_temporal
from db import money
from db.models import Build, LedgerEntry, Turn
from db.session import make_sessions
from db.transaction import transaction
from domain.names import WAKE
from domain.status import Status
from local.stack import LocalStack
from services.settle import Settled, settle
from tests.harness.checkout import THIS_VERSION, Checkout, first_versioned
from tests.harness.empty_database import empty_database
from tests.harness.scripts import PRODUCT, bash, steps
from tests.harness.wait import DEADLINE, wait_until
from tests.harness.worker import FOUR_TURNS_A_DAY, WorkerHarness, poor_founder, settings_of
from tests.harness.worker_process import RunningWorker, worker_process
from tests.workflows.scenarios import ready_build, until_row
from tests.workflows.upgrade_scenarios import activities_of_last_run, give_work_to, versions_of_runs

_KILL_AFTER_SECONDS = 5.0
"""A worker is killed this long after it has started to work."""

_KILLS = 3
"""Workers killed in each deploy."""

_LONGEST_SECONDS = 4 * DEADLINE


@dataclass
class Workers:
    """A worker of one version, which is started again whenever it is killed."""

    harness: WorkerHarness
    stack: LocalStack
    code: Checkout
    version: str
    running: RunningWorker | None = None
    kills: int = 0

    async def keep(self) -> None:
        """Keep a worker running. Fails if one ends by itself."""
        environment = {
            "DATABASE_URL": self.harness.settings.database_url,
            "TEMPORAL_DEPLOYMENT_NAME": self.harness.settings.temporal_deployment_name,
            "TEMPORAL_WORKER_BUILD_ID": self.version,
            "MORNING_SECONDS": "0",
        }
        while True:
            async with worker_process(self.harness, self.stack, code=self.code, variables=environment) as self.running:
                await self.running.exit_code()
                assert not self.running.last_words, self.running.last_words

    @property
    def works(self) -> bool:
        """Whether it has started, and was not killed since."""
        running = self.running
        if running is None or running.process.returncode is not None:
            return False
        return any(each["event"] == "worker started" for each in running.logged)

    def kill(self) -> None:
        """Kill the worker without a warning."""
        if self.running is not None and self.running.process.returncode is None:
            self.running.process.kill()
            self.kills += 1


@dataclass
class Fleet:
    """Builds in every state, and the workers of each version that has run so far."""

    harness: WorkerHarness
    stack: LocalStack
    builds: dict[uuid.UUID, str] = field(default_factory=dict)
    """How each is to be met: busy, asleep, asking or queued."""
    users: dict[uuid.UUID, str] = field(default_factory=dict)
    workers: list[Workers] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def start_workers(self, code: Checkout, version: str) -> None:
        """Start a worker of a version beside the others, and give it the new work."""
        self.workers.append(Workers(self.harness, self.stack, code, version))
        self.tasks.append(asyncio.create_task(self.workers[-1].keep()))
        await give_work_to(self.harness, version)

    async def start_builds(self, number: int) -> None:
        """Start builds, and wait until those that are to rest do so."""
        for index in range(number):
            await self._start(index)
        for build_id, what in self.builds.items():
            if what != "busy":
                await until_row(self.harness, build_id, _rests)

    async def _start(self, index: int) -> None:
        what = ("busy", "asleep", "asking", "queued")[index % 4]
        slow = [[bash(f"sleep 1; echo {number}")] for number in range(25)]
        harness, user_id = self.harness, await self.harness.founder()
        script = steps(*slow[index % 8 :], [bash(PRODUCT)])
        if what == "asleep":
            user_id, _ = await poor_founder(harness, FOUR_TURNS_A_DAY)
            script = steps(*[[bash(f"echo {number}")] for number in range(4)], [bash(PRODUCT)])
        elif what == "asking":
            script = steps(*[[bash("echo again")]] * 5, [bash(PRODUCT)])
        elif what == "queued":
            user_id = await harness.founder(await harness.plan(None, concurrent_builds=1))
            ahead = await harness.start(user_id, script=script)
            await until_row(harness, ahead, lambda row: row.status == Status.SCAFFOLD)
            self.builds[ahead] = "busy"
            script = steps([bash(PRODUCT)])
        build_id = await harness.start(user_id, script=script)
        self.builds[build_id], self.users[build_id] = what, user_id

    async def settle(self, version: str, generator: random.Random) -> Settled:
        """Move all builds to a version while workers are killed."""
        deployments = Deployments(self.harness.client, self.harness.settings.temporal_deployment_name)
        strikes = asyncio.create_task(self._strike(generator))
        try:
            return await settle(
                deployments,
                self.harness.builds,
                version,
                rate=20,
                report=lambda left: None,
                previews=False,
                at_most_seconds=_LONGEST_SECONDS,
            )
        finally:
            strikes.cancel()

    async def delete_versions(self, current: str) -> set[str]:
        """Stop the workers of all versions but the current one, and settle until Temporal has forgotten each."""
        idle = [task for each, task in zip(self.workers, self.tasks, strict=True) if each.version != current]
        for task in idle:
            task.cancel()
        await asyncio.wait(idle)
        deployments = Deployments(self.harness.client, self.harness.settings.temporal_deployment_name)
        deleted: set[str] = set()

        async def is_alone() -> bool:
            settled = await settle(deployments, self.harness.builds, current, rate=20, report=lambda left: None)
            deleted.update(settled.deleted)
            return [each.build_id for each in (await deployments.read()).versions] == [current]

        await wait_until(is_alone, look_seconds=1.0)
        return deleted

    async def _strike(self, generator: random.Random) -> None:
        for _ in range(_KILLS):
            victim = generator.choice(self.workers[-2:])
            while not victim.works:
                await asyncio.sleep(0.2)
            await asyncio.sleep(_KILL_AFTER_SECONDS)
            victim.kill()

    async def end_rests(self) -> None:
        """Give budget to those that sleep, and wake those that ask."""
        for build_id, what in self.builds.items():
            if what == "asking":
                await self.harness.handle(build_id).signal(WAKE)
            elif what == "asleep":
                async with transaction(self.harness.sessions) as tx:
                    today = datetime.now(UTC).date()
                    await money.top_up(tx, self.users[build_id], 10_000_000, today, key="once")
                await self.harness.builds.signal_budget_changed(build_id)

    async def resting(self) -> dict[uuid.UUID, Build]:
        """The rows of the builds that sleep, ask or are queued."""
        rows = {build_id: await self.harness.row(build_id) for build_id in self.builds}
        return {build_id: row for build_id, row in rows.items() if _rests(row)}


def _rests(row: Build) -> bool:
    rests = row.status in (Status.SLEEPING, Status.NEEDS_INPUT)
    return rests or (row.status == Status.QUEUED and row.reason is not None)


@asynccontextmanager
async def _fleet(stack: LocalStack, old: Checkout) -> AsyncIterator[Fleet]:
    """A deployment without workers, whose database the old version has migrated."""
    async with empty_database(stack) as engine:
        settings = settings_of(
            stack,
            database_url=engine.url.render_as_string(hide_password=False),
            temporal_task_queue=f"test-{uuid.uuid4()}",
            temporal_deployment_name=f"drill-{uuid.uuid4().hex[:8]}",
        )
        await old.run("migrate", stack.environment | {"DATABASE_URL": settings.database_url})
        assert settings.anthropic_base_url is not None
        client = await connect_temporal(stack.environment)
        fleet = Fleet(WorkerHarness(settings, client, make_sessions(engine), settings.anthropic_base_url), stack)
        try:
            yield fleet
        finally:
            for task in fleet.tasks:
                task.cancel()
            ended = await asyncio.gather(*fleet.tasks, return_exceptions=True)
        assert not [each for each in ended if isinstance(each, Exception)], ended


@pytest.mark.parametrize("builds", [4, 30])
async def test_deployed_twice_and_rolled_back(
    large_stack: LocalStack, sandbox_oracle: Path, figure: Callable[[str], None], builds: int
) -> None:
    """Issue 17: two deploys and a roll-back in the middle of builds, with workers killed meanwhile.

    The first version is the commit in `tests/first_versioned`. All builds become ready, each run keeps to one version,
    what rests is not touched, and no turn is charged twice. Then `settle` deletes the records of the other versions.
    """
    old, new = await asyncio.to_thread(first_versioned), THIS_VERSION
    generator = random.Random(builds)
    async with _fleet(large_stack, old) as fleet:
        harness = fleet.harness
        await fleet.start_workers(old, "old")
        await fleet.start_builds(builds)
        await new.run("migrate", large_stack.environment | {"DATABASE_URL": harness.settings.database_url})
        seconds, untouched = [], 0
        for version, code in (("new", new), ("newer", new), ("old", old)):
            before, began, asked = await fleet.resting(), monotonic(), len(_calls(sandbox_oracle))
            if version == "old":
                await give_work_to(harness, version)  # its worker still runs
            else:
                await fleet.start_workers(code, version)
            settled = await fleet.settle(version, generator)
            assert not any(task.done() for task in fleet.tasks), "a worker ended by itself"
            assert not settled.left.builds, f"{settled.left} did not move to {version}"
            seconds.append(monotonic() - began)
            after = await fleet.resting()
            rested = {row.sandbox_id for build_id, row in before.items() if build_id in after} - {None}
            assert not [each for each in _calls(sandbox_oracle)[asked:] if each["sandbox"] in rested], "it was touched"
            untouched = max(untouched, len(rested))
            for build_id in before.keys() & after.keys():
                assert after[build_id].status_seq == before[build_id].status_seq, "a rest was announced again"
                assert set(await activities_of_last_run(harness, build_id)) <= {"claim_place"}
        await fleet.end_rests()
        versions: Counter[str] = Counter()
        for build_id, what in fleet.builds.items():
            await ready_build(harness, build_id)
            versions.update(await versions_of_runs(harness, build_id))
            await _assert_charged_once(harness, build_id)
            waits = await harness.statuses(build_id)
            assert waits.count("needs_input") == (what == "asking"), "a person was asked"
            assert "waiting" not in waits
        kills = sum(each.kills for each in fleet.workers)
        deleted = await fleet.delete_versions("old")
        assert deleted == {"new", "newer"}
    figure(
        f"{len(fleet.builds)} builds ready, moved after {', '.join(f'{each:.0f}' for each in seconds)} s; "
        f"{untouched} sandboxes of resting builds without a call; {kills} workers killed; "
        f"runs by version: {dict(versions)}; {len(deleted)} drained versions deleted"
    )


def _calls(oracle: Path) -> list[dict[str, Any]]:
    """What the sandbox server was asked about sandboxes, in order."""
    return [json.loads(line) for line in (oracle / "control.jsonl").read_text().splitlines()]


async def _assert_charged_once(harness: WorkerHarness, build_id: uuid.UUID) -> None:
    """Each turn has one call that was settled. A call that was lost with its worker is an estimate."""
    async with harness.session() as tx:
        of_build = LedgerEntry.build_id == build_id, LedgerEntry.kind == "turn"
        settled = Counter(
            await tx.session.scalars(select(LedgerEntry.turn).where(*of_build, LedgerEntry.state == "settled"))
        )
        turns = list(await tx.session.scalars(select(Turn.number).where(Turn.build_id == build_id)))
    assert settled == Counter(turns)
