"""A soak: builds, founders, operators, deployments and faults together, for an hour; then nothing may have grown.

    python -m tests.faults.soak [--seconds 3600] [--seed 1] [--every 10] [--keep DIRECTORY]

The faults and the people are those of the chaos, less often; workers of a newer version join every ten minutes. Beside
the workers that faults strike run a worker and an API that none strikes. They share all the work: viewers follow every
build through that API and read the console's pages, and operators look at the fleet, wake builds, and switch builds
and the reaper off and on. Memory, open files, threads and connections are drawn at the end, with the sizes of tables.
Prints the drawings. The exit code is 1 if an invariant does not hold, or if something has grown or was measured too
rarely.

What has grown: by the Theil-Sen slope (the median of the slopes between all pairs of measurements) of the last 60 % of
the time, times that time. `LIMITS` says how much is allowed.
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
from tests.faults.chaos import Chaos, Outcome, judge_builds, keep_evidence, show
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


_FEW_MEASUREMENTS = 20
"""With fewer after the warm-up, nothing can be said of a slope."""

_JUDGED_SECONDS = 600.0
"""A shorter soak may measure less: it shows that all parts work together, not that nothing grows."""


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


async def run_soak(
    seed: int, seconds: float, every: float = 10.0, keep: Path | None = None, *, plan: list[Action] | None = None
) -> Soak:
    """Run in a harness of its own.

    Args:
        seed: determines the faults and what people do.
        seconds: length of the run, without the time until all builds have closed.
        every: seconds between two measurements.
        keep: where to store feeds, histories and logs if there is damage or something has grown.
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
            going_on = [
                asyncio.create_task(_view(chaos, api)),
                asyncio.create_task(_operate(chaos, api, random.Random(f"operators of {seed}"))),
            ]
            try:
                await chaos.strike(plan_soak(seed, seconds) if plan is None else plan, seconds)
            finally:
                for task in (measuring, *going_on):
                    task.cancel()
                ended = await asyncio.gather(measuring, *going_on, return_exceptions=True)
                soak.outcome.damage += [repr(each) for each in ended if isinstance(each, Exception)]
                await _end_acts(api)
            await chaos.end()
            if not worker.is_running or not api.is_running:
                soak.outcome.damage.append("a process that no fault struck has ended")
        await judge_builds(faults, chaos, expected, soak.outcome)
        soak.grown = list(_grown(soak.samples))
        if seconds >= _JUDGED_SECONDS:
            soak.grown += _unjudged(soak.samples)
        if keep is not None and not soak.holds:
            await keep_evidence(faults, keep, soak.outcome)
    return soak


@asynccontextmanager
async def _steady(faults: FaultHarness, chaos: Chaos) -> "AsyncIterator[tuple[WorkerProcess, ApiProcess]]":
    """A worker and an API that no fault strikes."""
    worker = await faults.worker(chaos.harness, None, is_rigged=False, **chaos.settings)
    api = ApiProcess(faults, await faults.front(), chaos.harness.settings.temporal_task_queue, "steady-api")
    await api.launch()
    try:
        await _ops(api, "GET", "fleet")  # it serves now; what it took to start does not count
        yield worker, api
    finally:
        await asyncio.gather(worker.end(), api.end())


_PAGES = ("", "/turns", "/progress", "/messages", "/past-events", "/snapshots", "/phases", "/diff", "/preview")
"""What the console reads of a build."""

_LISTS = ("/me", "/account", "/projects", "/builds", "/usage", "/organisations", "/keys")
"""What it reads of a founder."""


async def _view(chaos: Chaos, api: ApiProcess) -> None:
    """Follow each open build and its founder's account through the steady API, and read what the console reads."""
    following: dict[str, asyncio.Task[None]] = {}
    try:
        while True:
            with suppress(*MISSED, httpx2.HTTPError):
                for build in await chaos.people.open_builds():
                    if str(build.id) not in following:
                        following[str(build.id)] = asyncio.create_task(
                            api.follow(f"/builds/{build.id}/events", build.user_id)
                        )
                    if build.user_id not in following:
                        following[build.user_id] = asyncio.create_task(api.follow("/events", build.user_id))
                    for path in (*(f"/builds/{build.id}{page}" for page in _PAGES), *_LISTS):
                        answer = await api.ask("GET", path, build.user_id)
                        assert answer.status_code < 300 or answer.status_code == 404, f"{path}: {answer.text}"
                    chaos.people.done["pages of the console"] += 1
            for key in [key for key, task in following.items() if task.done()]:
                del following[key]
            await asyncio.sleep(2)
    finally:
        for task in following.values():
            task.cancel()
        await asyncio.gather(*following.values(), return_exceptions=True)


_READS = ("fleet", "builds", "stuck", "spend", "switches", "limits", "reaper", "reaper/plan", "bulk", "audit")
"""What operators look at, below `/v1/ops`."""

_OFF_SECONDS = 2.0, 10.0
"""How long builds, or the reaper, are off."""


async def _operate(chaos: Chaos, api: ApiProcess, rng: random.Random) -> None:
    """What operators do: look, wake all that waits, and switch builds and the reaper off and on."""
    done = chaos.people.done
    why = {"reason": "a soak"}
    while True:
        await asyncio.sleep(rng.uniform(2, 8))
        act = rng.choice(("look", "look", "look", "wake", "switch", "reaper", "limit"))
        with suppress(*MISSED, httpx2.HTTPError):
            if act == "look":
                await _ops(api, "GET", rng.choice(_READS))
            elif act == "wake":
                where = "status=sleeping,waiting,needs_input"
                await _ops(api, "POST", "bulk", {"act": "wake", "where": where, "rate_per_second": 20, **why})
            elif act == "switch":
                await _ops(api, "PUT", "switches", {"scope": "fleet", **why})
                await asyncio.sleep(rng.uniform(*_OFF_SECONDS))
                await _ops(api, "DELETE", "switches?scope=fleet")
            elif act == "reaper":
                await _ops(api, "POST", "reaper/pause", why)
                await asyncio.sleep(rng.uniform(*_OFF_SECONDS))
                await _ops(api, "POST", "reaper/resume")
            else:
                await _ops(api, "PUT", "limits/fleet_day", {"value_microdollars": rng.randint(1, 9) * 1_000_000_000})
            done[f"operators: {act}"] += 1


async def _ops(api: ApiProcess, method: str, path: str, body: object = None) -> None:
    answer = await api.ask(method, f"/ops/{path}", None, body)
    # A conflict: the act was done by a request whose answer was lost.
    assert answer.is_success or answer.status_code == 409, f"{method} {path}: {answer.text}"


async def _end_acts(api: ApiProcess) -> None:
    """Let builds and the reaper go on, whatever operators were at."""
    await _ops(api, "DELETE", "switches?scope=fleet")
    await _ops(api, "POST", "reaper/resume")
    await _ops(api, "PUT", "limits/fleet_day", {"value_microdollars": None})


_TABLES = text(
    """
    select sum(pg_total_relation_size(oid))::bigint,
        (select count(*) from builds where closed_at is not null),
        (select count(*) from pg_stat_activity where datname = current_database())
    from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace
    """
)


_LARGEST = text(
    """
    select relname, pg_total_relation_size(oid)::bigint as size from pg_class
    where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace order by size desc limit 6
    """
)


async def _measure(faults: FaultHarness, worker: WorkerProcess, api: ApiProcess) -> Measures:
    """What everything uses now."""
    async with transaction(faults.sessions) as tx:
        size, closed, connections = (await tx.execute(_TABLES, {})).one()
        largest = [(str(name), int(each)) for name, each in await tx.execute(_LARGEST, {})]
    measures = {
        **process_measures("steady worker", worker.pid),
        **process_measures("steady API", api.pid),
        "connections": float(connections),
        "builds closed": float(closed),
        "MB of tables": size / 1e6,
        **{f"table {name}: MB": each / 1e6 for name, each in largest},
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


def _unjudged(samples: Samples) -> Iterator[str]:
    """What was not measured often enough to say that it has not grown."""
    for limit in LIMITS:
        counts = {name: len(samples.after_warm_up(name)) for name in samples.values if limit.words in name}
        if not counts:
            yield f"{limit.words}: was not measured"
        for name, count in counts.items():
            if count < _FEW_MEASUREMENTS:
                yield f"{name}: only {count} measurements after the warm-up"


def _limit_of(name: str, samples: Samples) -> str:
    """How much it may grow, for the drawing."""
    allowed = [max(limit.least, limit.share * samples.level(name)) for limit in LIMITS if limit.words in name]
    return f"{min(allowed):+10.1f}" if allowed else " " * 10


def show_soak(soak: Soak) -> None:
    """Print the result."""
    show(soak.outcome)
    minutes = (soak.samples.seconds or [0.0])[-1] / 60
    print(f"{len(soak.samples.seconds)} measurements in {minutes:.0f} minutes:")
    print("  median after the warm-up, growth since, limit of growth, all measurements from 0 to the largest")
    for name in sorted(soak.samples.values):
        level, growth = soak.samples.level(name), soak.samples.growth(name)
        print(f"  {name:28} {level:12.1f} {growth:+10.1f} {_limit_of(name, soak.samples)}  {soak.samples.line(name)}")
    for each in soak.grown:
        print(f"  GROWN   {each}")
    if not soak.grown:
        print("  nothing has grown by more than its limit")


def main() -> int:
    """Return the exit code."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=10, help="seconds between two measurements")
    parser.add_argument("--keep", type=Path, help="directory for the measurements, and for what explains damage")
    options = parser.parse_args()
    soak = asyncio.run(run_soak(options.seed, options.seconds, options.every, options.keep))
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
        soak.samples.write(options.keep / "soak.csv")
    show_soak(soak)
    return 0 if soak.holds else 1


if __name__ == "__main__":
    sys.exit(main())
