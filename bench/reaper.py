"""Measure how long the reaper looks at many open builds, and what it asks for that.

    python -m bench.reaper [--builds 10000] [--ended 20]

Runs on the embedded stack, with workflows that no worker runs. With JSON=path in the environment it also writes the
figures to that file. A look reads what has ended since the last one, and at times compares a sixteenth of the rows with
what runs; the first look compares all of them.
"""

import argparse
import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from sqlalchemy import text, update

from activities.reaped_store import StoreReaper
from clients.build_workflows import BuildWorkflows
from clients.object_store import ObjectStore, store_config
from clients.sandbox import Sandboxes, sandbox_config
from clients.temporal import connect_temporal, describe_namespace
from db.migrate import migrate
from db.models import ReaperStep
from db.session import Sessions, open_sessions
from db.transaction import transaction
from domain.verdicts import SLICE_SECONDS
from local.stack import LocalStack, PartName
from services.deployment import check_deployment, rebind
from services.reap.builds import COMPARED, BuildReaper
from services.reap.look import Budget
from services.reap.nudges import Nudges
from services.reap.sandboxes import SandboxReaper
from tests.harness.many_builds import make_builds
from tests.harness.worker import settings_of


@dataclass(frozen=True)
class LookTime:
    """Seconds that the steps of one look took. `scans`: of the whole table of builds."""

    kind: str
    builds: float
    sandboxes: float
    store: float
    nudges: float
    closed: int
    scans: int

    @property
    def seconds(self) -> float:
        """All steps, one after the other."""
        return self.builds + self.sandboxes + self.store + self.nudges


@dataclass(frozen=True)
class Reaper:
    """The steps, without their activities."""

    sessions: Sessions
    workflows: BuildWorkflows
    sandboxes: Sandboxes
    store: ObjectStore

    async def look(self, kind: str) -> LookTime:
        """Take each step once, and measure it."""
        scans = await self._scans()
        closed, builds = await _timed(self._in_namespace(BuildReaper(self.sessions, self.workflows).look()))
        reaper = SandboxReaper(self.sessions, self.workflows, self.sandboxes, timedelta(0))
        _, sandboxes = await _timed(self._in_namespace(reaper.look(Budget())))
        _, store = await _timed(self._in_namespace(StoreReaper(self.sessions, self.store).look(Budget())))
        _, nudges = await _timed(self._in_namespace(Nudges(self.sessions, self.workflows).look(Budget())))
        return LookTime(kind, builds, sandboxes, store, nudges, closed.closed, await self._scans() - scans)

    async def _in_namespace(self, step: Awaitable[Any]) -> Any:
        await check_deployment(self.sessions, self.workflows)
        return await step

    async def _scans(self) -> int:
        async with transaction(self.sessions) as tx:
            await tx.session.execute(text("select pg_stat_force_next_flush()"))
        async with transaction(self.sessions) as tx:
            query = "select seq_scan from pg_stat_user_tables where relname = 'builds'"
            return int((await tx.session.execute(text(query))).scalar_one())


async def _timed(step: Awaitable[Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    result = await step
    return result, time.perf_counter() - began


@asynccontextmanager
async def open_reaper(stack: LocalStack) -> AsyncIterator[Reaper]:
    """The reaper of a stack whose database is new."""
    settings = settings_of(stack)
    await migrate(settings.database_url)
    client = await connect_temporal(stack.environment)
    async with (
        open_sessions(settings.database_url, pool_size=20) as sessions,
        ObjectStore(store_config(settings)) as store,
    ):
        await rebind(sessions, await describe_namespace(client))
        sandboxes = Sandboxes(sandbox_config(settings))
        yield Reaper(sessions, BuildWorkflows(client, "no-workers"), sandboxes, store)
        await sandboxes.close()


async def measure(builds: int, ended: int) -> list[LookTime]:
    """A look that compares all rows, two that read what has ended, and one that compares a sixteenth of the rows."""
    parts: tuple[PartName, ...] = ("postgres", "temporal", "s3", "sandbox")
    stack = LocalStack(parts=parts, durable=False, temporal_ui=False)
    async with stack, open_reaper(stack) as reaper:
        client = await connect_temporal(stack.environment)
        many = await make_builds(reaper.sessions, client, builds)
        looks = [await reaper.look("all rows")]
        await many.end(ended)
        looks += [await reaper.look("what ended"), await reaper.look("nothing new")]
        async with transaction(reaper.sessions) as tx:
            before = ReaperStep.at - timedelta(seconds=SLICE_SECONDS)
            await tx.session.execute(update(ReaperStep).where(ReaperStep.step == COMPARED).values(at=before))
        return [*looks, await reaper.look("a sixteenth")]


def main() -> None:
    """Print a line for each look."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--builds", type=int, default=10_000, help="open builds")
    parser.add_argument("--ended", type=int, default=20, help="builds whose workflow is terminated")
    arguments = parser.parse_args()
    looks = asyncio.run(measure(arguments.builds, arguments.ended))
    console = Console(highlight=False, width=150)
    console.print(f"{arguments.builds:,} open builds, seconds a look:")
    for look in looks:
        parts = ", ".join(f"{part} {getattr(look, part):.2f}" for part in ("builds", "sandboxes", "store", "nudges"))
        console.print(f"  {look.kind:<12} {look.seconds:6.2f}  ({parts}); {look.closed} closed, {look.scans} scans")
    if path := os.environ.get("JSON"):
        Path(path).write_text(json.dumps([{**asdict(look), "seconds": look.seconds} for look in looks]))


if __name__ == "__main__":
    main()
