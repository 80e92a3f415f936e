"""What an operator goes through while builds run: Temporal's namespace is lost, or the database is put back.

Both recoveries follow docs/backup.md, with the tools that it names.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from time import time

from sqlalchemy import select

from db.models import Build
from db.transaction import transaction
from domain.deployment import RECOVER_COMMAND
from domain.status import Status
from local.stack import PartName
from tests.faults.people import People
from tests.faults.plan import KILLED_SERVERS
from tests.faults.recovered import LostTime, Past
from tests.harness.api_process import ApiProcess
from tests.harness.backup import dump_database, restore_database
from tests.harness.fault_waits import workflow_exists
from tests.harness.faults import WORKER_SETTINGS, FaultHarness
from tests.harness.recover import run_recover
from tests.harness.wait import wait_until
from tests.harness.worker import WorkerHarness

_STARTS_WITHOUT_SERVERS = "the API starts without its servers"
_API_TRIES = 3
"""On a busy machine the API may have no time to check its servers, and serve. Then look at another one."""


@dataclass(frozen=True)
class PutBack:
    """A restore of the database. `closed`: builds that had ended before the backup, with their versions if they were
    ready. `ready_later`: builds that became ready after it."""

    lost: LostTime
    closed: Mapping[uuid.UUID, int | None]
    ready_later: frozenset[uuid.UUID]


class Operator:
    """Recovers the deployment. `damage` has what did not go as the documents say."""

    def __init__(
        self,
        faults: FaultHarness,
        harness: WorkerHarness,
        people: People,
        locks: Mapping[PartName, asyncio.Lock],
        stopped: Callable[[], AbstractAsyncContextManager[None]],
        worker_settings: Mapping[str, str],
    ) -> None:
        """Args:
        faults: the stack.
        harness: for the workers' queue.
        people: who forget what was lost.
        locks: held while a server must go on.
        stopped: keeps every worker and API process stopped.
        worker_settings: of the workers.
        """
        self.damage: list[str] = []
        self.steps: Counter[str] = Counter()
        """What the recoveries have done."""
        self._faults = faults
        self._harness = harness
        self._people = people
        self._locks = locks
        self._stopped = stopped
        self._worker_settings = worker_settings
        self._acting = asyncio.Lock()
        self._put_back: list[PutBack] = []
        self._namespace_lost_at = 0.0

    # ---- acts

    async def lose_namespace(self) -> None:
        """Lose Temporal's database while everything runs, and recover in the empty namespace."""
        async with self._acting, self._servers(*KILLED_SERVERS):
            await self._faults.lose_namespace()
            async with self._stopped():
                await self._check_refusals()
                await self._recover("--temporal")
                self._namespace_lost_at = time()

    async def put_back_database(self, seconds: float) -> None:
        """Back the database up, let everything go on for some seconds, and put the database back."""
        file = self._faults.directory / f"backup-{len(self._put_back)}"
        url = self._faults.settings.database_url
        async with self._acting:
            async with self._servers("postgres"):
                began, closed = time(), await self._closed()
                await dump_database(url, file)
            await asyncio.sleep(seconds)
            async with self._servers(*KILLED_SERVERS), self._stopped():
                later = await self._closed()
                await restore_database(url, file)
                await self._faults.forget_connections()
                await self._people.forget(began)
                await self._recover("--after-restore")
                became_ready = {build for build, version in later.items() if version is not None} - closed.keys()
                self._put_back.append(PutBack(LostTime(began, time()), closed, frozenset(became_ready)))

    # ---- what they leave

    def past_of(self, build: Build) -> Past:
        """What the acts may have taken from a build."""
        created, closed = build.created_at.timestamp(), build.closed_at
        put_back = [each for each in self._put_back if created < each.lost.ended]
        return Past(
            self._people.goal_of(build),
            [each.lost for each in put_back if build.id not in each.closed],
            skips=len(put_back),  # the preview of a build that has ended has events too
            has_history=closed is None or closed.timestamp() > self._namespace_lost_at,
        )

    def has_lost_row(self, build: Build) -> bool:
        """Whether the build was started in a lost time, so that it may have been ended for want of its row."""
        return any(each.lost.covers(build.created_at.timestamp()) for each in self._put_back)

    async def missing(self) -> list[str]:
        """Name what is gone although no restore may take it."""
        async with transaction(self._faults.sessions) as tx:
            rows = {build.id: build for build in await tx.session.scalars(select(Build))}
        damage = []
        for put_back in self._put_back:
            for build_id, version in put_back.closed.items():
                if build_id not in rows or rows[build_id].build_version != version:
                    damage.append(f"build {build_id} had ended before the backup, and differs now")
            for build_id in put_back.ready_later:
                if build_id not in rows or rows[build_id].status != Status.READY:
                    damage.append(f"build {build_id} was ready before the database was put back, and is not now")
        for build_id in self._people.started.keys() - rows.keys():
            if build_id not in self._people.vanished:
                damage.append(f"the API has acknowledged build {build_id}, and it has no row")
            elif await workflow_exists(self._harness, build_id):
                damage.append(f"build {build_id} has a workflow and no row")
        return damage

    # ---- steps

    @asynccontextmanager
    async def _servers(self, *parts: PartName) -> AsyncIterator[None]:
        """Keep these servers running."""
        taken: list[asyncio.Lock] = []
        try:
            for part in parts:
                await self._locks[part].acquire()
                taken.append(self._locks[part])
            yield
        finally:
            for lock in taken:
                lock.release()

    async def _closed(self) -> dict[uuid.UUID, int | None]:
        async with transaction(self._faults.sessions) as tx:
            rows = await tx.session.execute(select(Build.id, Build.build_version).where(Build.closed_at.is_not(None)))
            return {build_id: version for build_id, version in rows}

    async def _check_refusals(self) -> None:
        """A worker and an API process must not serve an empty namespace, and must say what to do."""
        worker = self._faults.launch(self._harness, None, is_rigged=True, **self._worker_settings)
        await wait_until(lambda: worker.has_started or not worker.is_running, look_seconds=0.2)
        if worker.has_started or RECOVER_COMMAND not in worker.log.read_text():
            self.damage.append(f"a worker starts in an empty namespace, or does not name `{RECOVER_COMMAND}`")
        await worker.end()
        if not await self._api_refuses():
            self.damage.append(f"the API starts in an empty namespace, or does not name `{RECOVER_COMMAND}`")

    async def _api_refuses(self) -> bool:
        for _ in range(_API_TRIES):
            api = ApiProcess(self._faults, {}, self._harness.settings.temporal_task_queue, "api-refused")
            api.log.write_text("")
            await api.launch()
            await wait_until(lambda: not api.is_running or _STARTS_WITHOUT_SERVERS in api.log.read_text())  # noqa: B023 - awaited here
            await api.end()
            if RECOVER_COMMAND in api.log.read_text():
                return True
        return False

    async def _recover(self, what: str) -> None:
        """Run the command: first it refuses, then it is told to go on."""
        environment = {
            **self._faults.process_environment({}),
            **WORKER_SETTINGS,
            "TEMPORAL_TASK_QUEUE": self._harness.settings.temporal_task_queue,
        }
        code, done, printed = await run_recover(environment, what)
        self._log(what, done, printed)
        if code != 0 and "Nothing was changed" in printed:
            code, done, printed = await run_recover(environment, what, "--yes")
            self._log(f"{what} --yes", done, printed)
        if code != 0 or done.get("failed"):
            self.damage.append(f"`cofounder recover {what}` ends with {code}: {printed[-500:]}")
        self.steps.update(done.get("steps", {}))

    def _log(self, what: str, done: Mapping[str, object], printed: str) -> None:
        with (self._faults.directory / "recover.log").open("a") as log:
            log.write(f"{time():.1f} {what}: {dict(done)}\n{printed}\n")
