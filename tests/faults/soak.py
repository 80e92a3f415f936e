"""A soak: builds, founders, operators, deployments and faults together, for an hour; then nothing may have grown.

    python -m tests.faults.soak [--seconds 3600] [--seed 1] [--every 10] [--keep DIRECTORY]

The faults and the people are those of the chaos, less often. Beside the workers that faults strike run a worker and an
API that none strikes: they share all the work, viewers follow every build through that API, and their memory, open
files and connections are drawn at the end, with those of the servers and the tables. Prints the drawings. The exit code
is 1 if an invariant does not hold or if something has grown.
"""

import argparse
import asyncio
import logging
import random
import sys
from collections.abc import Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import psutil
import structlog
from sqlalchemy import text

from db.transaction import transaction
from local.stack import PARTS
from tests.faults.chaos import Chaos, Outcome, judge_builds, show
from tests.faults.people import MISSED, scripts
from tests.faults.plan import Action, plan_soak
from tests.harness.api_process import ApiProcess
from tests.harness.faults import FaultHarness, WorkerProcess, fault_harness
from tests.harness.resources import Measures, Samples, keep_sampling, process_measures

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_FEW_BUILDS = 20
"""Bytes of tables are compared per closed build, once there are so many."""


@dataclass(frozen=True)
class Limit:
    """How much something may grow after the warm-up: by this part of its level, or by this much if that is more."""

    words: str
    share: float
    least: float

    def allows(self, samples: Samples, name: str) -> bool:
        """Whether what was measured stays within the limit."""
        return samples.growth(name) <= max(self.least, self.share * samples.level(name))


LIMITS = (
    Limit("steady worker: MB", 0.10, 25),
    Limit("steady API: MB", 0.10, 25),
    Limit("sandbox: MB", 0.15, 25),
    Limit(": files", 0.25, 30),
    Limit(": threads", 0.25, 10),
    Limit("connections", 0.25, 15),
    Limit("bytes of tables a build", 0.15, 20_000),
)
"""What must stay flat. Temporal's server, PostgreSQL and the object store are drawn: they hold what they are given."""


@dataclass
class Soak:
    """The result."""

    outcome: Outcome
    samples: Samples
    grown: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether every invariant holds and nothing has grown."""
        return not self.outcome.damage and not self.grown


async def run_soak(seed: int, seconds: float, every: float = 10.0, *, plan: list[Action] | None = None) -> Soak:
    """Run in a harness of its own.

    Args:
        seed: determines the faults and what people do.
        seconds: length of the run, without the time until all builds have closed.
        every: seconds between two measurements.
        plan: faults in place of the seed's.
    """
    soak = Soak(Outcome(seed), Samples())
    async with fault_harness(scripts(seed)) as faults:
        chaos = Chaos(faults, random.Random(f"people of {seed}"))
        expected = await chaos.reference()
        async with _steady(faults, chaos) as (worker, api), chaos.background():
            measuring = asyncio.create_task(
                keep_sampling(soak.samples, lambda: _measure(faults, worker, api), every, *MISSED)
            )
            viewing = asyncio.create_task(_view(chaos, api))
            try:
                await chaos.strike(plan_soak(seed, seconds) if plan is None else plan, seconds)
            finally:
                measuring.cancel()
                viewing.cancel()
                await asyncio.gather(measuring, viewing, return_exceptions=True)
            await chaos.end()
            if not worker.is_running or not api.is_running:
                soak.outcome.damage.append("a process that no fault struck has ended")
        await judge_builds(faults, chaos, expected, soak.outcome)
    soak.grown = list(_grown(soak.samples))
    return soak


@asynccontextmanager
async def _steady(faults: FaultHarness, chaos: Chaos) -> "AsyncIterator[tuple[WorkerProcess, ApiProcess]]":
    """A worker and an API that no fault strikes."""
    worker = await faults.worker(chaos.harness, None, **chaos.settings)
    api = ApiProcess(faults, await faults.front(), chaos.harness.settings.temporal_task_queue, "steady-api")
    await api.launch()
    try:
        yield worker, api
    finally:
        await asyncio.gather(worker.end(), api.end())


async def _view(chaos: Chaos, api: ApiProcess) -> None:
    """Follow each open build through the steady API, as its founder's page does, and read its lists."""
    following: dict[str, asyncio.Task[None]] = {}
    try:
        while True:
            with suppress(*MISSED, httpx2.HTTPError):
                for build in await chaos.people.open_builds():
                    if str(build.id) not in following:
                        following[str(build.id)] = asyncio.create_task(
                            api.follow(f"/builds/{build.id}/events", build.user_id)
                        )
                    await api.ask("GET", f"/builds/{build.id}", build.user_id)
                    await api.ask("GET", "/projects", build.user_id)
            for key in [key for key, task in following.items() if task.done()]:
                del following[key]
            await asyncio.sleep(2)
    finally:
        for task in following.values():
            task.cancel()
        await asyncio.gather(*following.values(), return_exceptions=True)


_TABLES = text(
    """
    select sum(pg_total_relation_size(oid))::bigint,
        (select count(*) from builds where closed_at is not null),
        (select count(*) from pg_stat_activity where datname = current_database())
    from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace
    """
)


async def _measure(faults: FaultHarness, worker: WorkerProcess, api: ApiProcess) -> Measures:
    """What everything uses now."""
    async with transaction(faults.sessions) as tx:
        size, closed, connections = (await tx.execute(_TABLES, {})).one()
    measures = {
        **process_measures("steady worker", worker.pid),
        **process_measures("steady API", api.pid),
        "connections": float(connections),
        "builds closed": float(closed),
        "MB of tables": size / 1e6,
    }
    if closed >= _FEW_BUILDS:
        measures["bytes of tables a build"] = size / closed
    for part in PARTS:
        with suppress(psutil.Error, KeyError):
            measures |= process_measures(part, faults.stack.pid(part))
    return measures


def _grown(samples: Samples) -> Iterator[str]:
    for name in sorted(samples.values):
        for limit in LIMITS:
            if limit.words in name and not limit.allows(samples, name):
                yield f"{name} has grown by {samples.growth(name):.1f} from about {samples.level(name):.1f}"


def show_soak(soak: Soak) -> None:
    """Print the result."""
    show(soak.outcome)
    minutes = (soak.samples.seconds or [0.0])[-1] / 60
    print(f"{len(soak.samples.seconds)} measurements in {minutes:.0f} minutes: median after the warm-up, growth since")
    for name in sorted(soak.samples.values):
        level, growth = soak.samples.level(name), soak.samples.growth(name)
        print(f"  {name:28} {level:12.1f} {growth:+10.1f}  {soak.samples.line(name)}")
    for each in soak.grown:
        print(f"  GROWN   {each}")
    if not soak.grown:
        print("  nothing has grown")


def main() -> int:
    """Return the exit code."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=10, help="seconds between two measurements")
    parser.add_argument("--keep", type=Path, help="directory for the measurements as soak.csv")
    options = parser.parse_args()
    soak = asyncio.run(run_soak(options.seed, options.seconds, options.every))
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
        soak.samples.write(options.keep / "soak.csv")
    show_soak(soak)
    return 0 if soak.holds else 1


if __name__ == "__main__":
    sys.exit(main())
