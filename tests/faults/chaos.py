"""Faults of all kinds at random moments, on the real stack, while builds run; then everything has to come to its end.

    python -m tests.faults.chaos [--seconds 180] [--seed 1] [--runs 1] [--plan]

The seed fixes which faults come when (`--plan` prints them, and does nothing else); what they find there it can't fix.
Prints what struck and what became of the builds; exit code 1 when something is not as it must be, when no build got
ready or when nothing struck. `--runs`: so many runs, one after the other, with the seeds that follow.
"""

import argparse
import asyncio
import itertools
import json
import logging
import os
import random
import shutil
import signal
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar, cast

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from temporalio.service import RPCError

from activities.runtime.crash_point import CrashPoint
from db.builds import BuildRequest, insert_build, request_cancel
from db.models import Build, Event, User
from db.money import top_up
from domain.errors import CofounderError
from domain.names import BUILD_WORKFLOW, build_workflow_id
from domain.status import Status
from local.stack import PARTS, PartName
from services.builds import start_workflow
from tests.faults.cases import until_swept
from tests.faults.disabled_safeguards import NEWER
from tests.faults.invariants import (
    Damage,
    Handed,
    check_build,
    check_no_secret,
    check_nothing_left,
    check_spending,
    handed_over,
)
from tests.faults.plan import Action, planned
from tests.faults.proxy import FaultProxy
from tests.faults.report import close_preview, closed
from tests.faults.sample_build import sample_script
from tests.harness.faults import FaultHarness, Front, WorkerProcess, copy_tree, fault_harness, put_back
from tests.wait import DEADLINE

WORKERS = 2
BUILDS_AT_ONCE = 3
PATIENCE_SECONDS = 2 * DEADLINE
"""How long after the last fault everything may take to come to its end."""

_ALLOWANCE_A_CYCLE = 60_000_000
_TOP_UP = 1_000_000
"""µ$: founders with a small plan, whose builds fall asleep; and what wakes them."""

_GOAL = "Build the story's product."
_MISSED = (CofounderError, RPCError, OSError, SQLAlchemyError)
"""What people and the harness itself see of faults; they try again."""

T = TypeVar("T")


@dataclass
class Outcome:
    """What a run came to. `damage` is empty if all is well."""

    seed: int
    struck: Counter[str] = field(default_factory=Counter)
    builds: Counter[str] = field(default_factory=Counter)
    seconds_to_the_end: float = 0.0
    damage: list[str] = field(default_factory=list)


async def run_chaos(seed: int, seconds: float, keep: Path | None = None) -> Outcome:
    """One run on a ground of its own. `keep`: where the feeds, histories and logs go if something is wrong."""
    outcome = Outcome(seed)
    async with fault_harness([{"match": _GOAL, "script": sample_script()}]) as here:
        chaos = Chaos(here, random.Random(f"people of {seed}"))
        expected = await chaos.reference()
        async with chaos.going_on():
            await chaos.strike(planned(seed, seconds), seconds)
            began = monotonic()
            await chaos.end()
            outcome.seconds_to_the_end = monotonic() - began
        outcome.struck = chaos.struck()
        await _judge(here, chaos, expected, outcome)
        if keep is not None and outcome.damage:
            await _keep(here, keep / f"seed-{seed}")
    if not outcome.builds[Status.READY]:
        outcome.damage.append("nothing progressed: no build became ready")
    if not outcome.struck:
        outcome.damage.append("no fault struck")
    return outcome


async def _judge(here: FaultHarness, chaos: "Chaos", expected: Handed, outcome: Outcome) -> None:
    """Check every build that the database knows, then the ground."""

    async def note(what: str, check: Awaitable[None]) -> None:
        try:
            await check
        except Damage as damage:
            outcome.damage += [f"{what}: {each}" for each in damage.found]
        except Exception as error:
            outcome.damage.append(f"{what} could not be checked: {error!r}")

    async def judge(build: Build) -> None:
        async with at_once:
            # A cancel that comes too late ends a build as ready.
            ended = build.id in chaos.ended and build.status != Status.READY
            check = until_swept(here, build.id) if ended else check_build(here, build.id, expected)
            await note(f"build {build.id}", check)
            await close_preview(chaos.harness, build.id)

    at_once = asyncio.Semaphore(4)
    async with here.sessions() as session:
        builds = (await session.scalars(select(Build).order_by(Build.created_at))).all()
    outcome.builds.update(build.status for build in builds)
    await asyncio.gather(*map(judge, builds))
    await note("money", check_spending(here))
    await note("secrets", check_no_secret(here))
    await chaos.dismiss()
    await note("the end", check_nothing_left(here))


async def _keep(here: FaultHarness, directory: Path) -> None:
    """Keep what tells how it came: each build's feed and history, the workers' and the servers' logs."""
    directory.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - of this machine's disk, like all here
    async with here.sessions() as session:
        ids = (await session.scalars(select(Build.id))).all()
        for build_id in ids:
            events = await session.scalars(select(Event).where(Event.build_id == build_id).order_by(Event.id))
            lines = [
                f"{each.created_at:%H:%M:%S.%f} {each.turn} {each.type} {json.dumps(each.data)}" for each in events
            ]
            (directory / f"{build_id}.feed").write_text("\n".join(lines))
            history = await here.client.get_workflow_handle(build_workflow_id(build_id)).fetch_history()
            (directory / f"{build_id}.json").write_text(history.to_json())
    for log in (
        *here.directory.glob("*.log"),
        *(here.stack.data / "logs").glob("*.log"),
        here.oracle / "started.jsonl",
    ):
        await asyncio.to_thread(shutil.copy, log, directory)


class Chaos:
    """The ground with people and workers on it, and the hand that strikes."""

    def __init__(self, here: FaultHarness, rng: random.Random) -> None:
        self.here = here
        self.harness = here.harness()
        self.ended: set[uuid.UUID] = set()
        """Builds that somebody has cancelled or terminated."""
        self._rng = rng
        self._struck: Counter[str] = Counter()
        self._fronts: list[Front] = []
        self._workers: list[WorkerProcess] = []
        self._newer = False
        self._reverts_due = 0
        self._copied: set[uuid.UUID] = set()
        self._projects: dict[str, list[uuid.UUID]] = {}
        self._locks: dict[str, asyncio.Lock] = {part: asyncio.Lock() for part in PARTS}
        self._poison: list[str] = []
        self._numbers = itertools.count(1)
        self._starting = True

    # ---- what goes on, whatever strikes

    async def reference(self) -> Handed:
        """The first build, which nothing strikes: what all others have to hand over."""
        self._fronts = [await self.here.front() for _ in range(WORKERS)]
        self._workers = [await self.here.worker(self.harness, front, **self._settings) for front in self._fronts]
        plan = await self.harness.plan(_ALLOWANCE_A_CYCLE)
        self._projects = {await self.harness.founder(): [], await self.harness.founder(plan): []}
        build_id = await self.harness.start(goal=_GOAL)
        await closed(self.harness, build_id)
        return await handed_over(self.here, build_id)

    @property
    def _settings(self) -> dict[str, str]:
        return {"CONTINUE_AS_NEW_TURNS": "3", "SANDBOX_MAX_SECONDS": "60"}

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Workers that die are replaced, builds are started, and people do what builds wait for."""
        loops = [self._replace_workers(), self._start_builds(), self._be_people(), self._say_things()]
        tasks = [asyncio.create_task(loop) for loop in loops]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended

    async def dismiss(self) -> None:
        """End the workers; all that they began has ended."""
        await asyncio.gather(*(worker.end() for worker in self._workers))

    async def _replace_workers(self) -> None:
        while True:
            for number, worker in enumerate(self._workers):
                if not worker.is_running:
                    without = NEWER if self._newer else ""
                    self._workers[number] = self.here.launch(
                        self.harness, self._fronts[number], without=without, **self._settings
                    )
            await asyncio.sleep(0.5)

    async def _start_builds(self) -> None:
        while self._starting:
            with suppress(*_MISSED):
                if len(await self._open()) < BUILDS_AT_ONCE:
                    await self._start_one()
            await asyncio.sleep(0.5)

    async def _start_one(self) -> None:
        """As the API does it: the row first, then the workflow; what gets lost between them the reaper mends."""
        user_id = self._rng.choice(list(self._projects))
        projects = self._projects[user_id]
        again = projects.pop(0) if len(projects) > BUILDS_AT_ONCE else None
        project_id = again or await self.harness.project(user_id)
        projects.append(project_id)
        goal = f"{_GOAL} [{uuid.uuid4().hex}]"
        async with self.here.sessions.begin() as session:
            build = await insert_build(session, BuildRequest(project_id, user_id, goal))
            if build is None:
                return  # the project's last one is still open
            user = await session.get_one(User, user_id)
        await start_workflow(self.here.sessions, self.harness.builds, build, "chaos", user.plan)

    async def _be_people(self) -> None:
        """Wake what waits for a person, and give money to what sleeps."""
        while True:
            with suppress(*_MISSED):
                for build in await self._open():
                    if build.status == Status.NEEDS_INPUT:
                        await self._revert(build)
                        await self.harness.builds.wake(build.id)
                    elif build.status == Status.SLEEPING:
                        await self._revert(build)
                        await self._top_up(build)
                    elif build.id not in self._copied and build.sandbox_id is not None:
                        await self._copy(build)
            await asyncio.sleep(1)

    async def _say_things(self) -> None:
        """Say something to one of the builds now and then."""
        while self._starting:
            await asyncio.sleep(self._rng.uniform(1, 8))
            with suppress(*_MISSED):
                if builds := await self._open():
                    build = self._rng.choice(builds)
                    await self.here.say(self.harness, build.id, f"Number {next(self._numbers)}: keep it small.")

    async def _top_up(self, build: Build) -> None:
        today = datetime.now(UTC).date()
        async with self.here.sessions.begin() as session:
            await top_up(session, build.user_id, _TOP_UP, today, key=f"{build.id}-{next(self._numbers)}")
        await self.harness.builds.signal_budget_changed(build.id)

    # ---- what is there

    async def _open(self) -> Sequence[Build]:
        async with self.here.sessions() as session:
            query = select(Build).where(Build.closed_at.is_(None)).order_by(Build.created_at)
            return (await session.scalars(query)).all()

    def _one_of(self, there: Sequence[T], action: Action) -> T | None:
        return there[int(action.whom * len(there))] if there else None

    async def _build(self, action: Action) -> Build | None:
        return self._one_of(await self._open(), action)

    def struck(self) -> Counter[str]:
        """How often each kind of fault has struck."""
        struck = self._struck.copy()
        for point in self.here.crashed():
            struck[f"crash at: {point}"] += 1
        for line in self.here.served():
            if line["fault"]:
                struck[f"model: {line['fault']}"] += 1
        return struck

    # ---- faults

    async def strike(self, actions: Sequence[Action], seconds: float) -> None:
        """Let each fault strike at its moment; returns when their time is over, and theirs alone."""
        began = monotonic()
        async with asyncio.TaskGroup() as striking:
            for action in actions:
                await asyncio.sleep(max(0.0, began + action.at - monotonic()))
                striking.create_task(self._try(action))
            await asyncio.sleep(max(0.0, began + seconds - monotonic()))
            self._starting = False

    async def _try(self, action: Action) -> None:
        with suppress(*_MISSED):
            await self._apply(action)

    def _apply(self, action: Action) -> Coroutine[Any, Any, None]:
        what, _, which = action.kind.partition(": ")
        match what:
            case "worker":
                return self._strike_worker(action, which)
            case "crash at":
                return self._crash_at(action, cast("CrashPoint", which))
            case "model":
                return self.harness.rehearse("faults", {"kind": which, "seconds": 300})
            case "killed":
                return self._kill_server(cast("PartName", which))
            case "hangs":
                return self._hang(action, cast("PartName", which))
            case "workspace":
                return self._strike_workspace(action, which)
            case "workflow":
                return self._strike_workflow(action, which)
            case _:
                part = cast("PartName", what.removeprefix("to "))
                all_of_them = action.whom < 0.5
                struck = self._fronts if all_of_them else [self._fronts[int(action.whom * WORKERS)]]
                return self._strike_connections([front[part] for front in struck], action, which)

    async def _strike_worker(self, action: Action, how: str) -> None:
        worker = self._one_of([worker for worker in self._workers if worker.is_running], action)
        if worker is None:
            return
        self._struck[action.kind] += 1
        if how == "SIGKILL":
            worker.send(signal.SIGKILL)
        elif how.startswith("SIGTERM"):
            self._newer = True
            worker.send(signal.SIGTERM)
        else:
            worker.send(signal.SIGSTOP)
            await asyncio.sleep(action.seconds)
            worker.send(signal.SIGCONT)

    async def _crash_at(self, action: Action, point: CrashPoint) -> None:
        if (build := await self._build(action)) is not None:
            self.here.ask(point, build.id, "kill")

    async def _kill_server(self, part: PartName) -> None:
        async with self._locks[part]:
            self._struck[f"killed: {part}"] += 1
            self.here.stack.kill(part, signal.SIGQUIT if part == "postgres" else signal.SIGKILL)
            await asyncio.sleep(0.5)
            await self.here.stack.restart(part)

    async def _hang(self, action: Action, part: PartName) -> None:
        async with self._locks[part]:
            self._struck[f"hangs: {part}"] += 1
            self.here.stack.kill(part, signal.SIGSTOP)
            await asyncio.sleep(action.seconds)
            self.here.stack.kill(part, signal.SIGCONT)

    async def _strike_connections(self, proxies: Sequence[FaultProxy], action: Action, how: str) -> None:
        before = sum(proxy.struck[how] for proxy in proxies)
        for proxy in proxies:
            if how == "cut":
                proxy.cut()
            elif how == "answer lost":
                proxy.answers_to_lose += 1
            elif how == "delay":
                proxy.delay_seconds = 0.1
            elif how == "blackhole":
                proxy.blackhole()
            else:
                proxy.refuse(int(how))
        if how != "cut":
            await asyncio.sleep(action.seconds)
            for proxy in proxies:
                proxy.heal()
        if sum(proxy.struck[how] for proxy in proxies) > before:
            self._struck[action.kind] += 1

    async def _strike_workspace(self, action: Action, how: str) -> None:
        if how == "files reverted":
            self._reverts_due += 1
        elif (sandbox := self._one_of(await self.here.sandboxes.list_all(), action)) is not None:
            self._struck[action.kind] += 1
            await (self.here.sandboxes.kill if how == "sandbox killed" else self.here.sandboxes.pause)(sandbox.id)

    async def _copy(self, build: Build) -> None:
        """Keep what a workspace is at some moment, so that its files can be put back to that."""
        if await self.harness.events(build.id, "tool_done"):
            self._copied.add(build.id)
            await copy_tree(self._home(build), self._kept(build))

    async def _revert(self, build: Build) -> None:
        """Put a paused workspace's files back to what they were earlier, if that is due."""
        if not self._reverts_due or build.id not in self._copied or not self._home(build).exists():
            return
        listed = await self.here.sandboxes.list_all()
        if (build.sandbox_id, "paused") not in {(each.id, each.state) for each in listed}:
            return
        self._reverts_due -= 1
        self._struck["workspace: files reverted"] += 1
        await put_back(self._kept(build), self._home(build))

    def _home(self, build: Build) -> Path:
        return self.here.sandbox_directory(build.sandbox_id or "-") / "home"

    def _kept(self, build: Build) -> Path:
        return self.here.directory / f"earlier-{build.id}"

    async def _strike_workflow(self, action: Action, how: str) -> None:
        if how == "a poison one":
            self._struck[action.kind] += 1
            given = {"build_id": str(uuid.uuid4())} if action.whom < 0.5 else ["no build"]
            self._poison.append(f"build-{uuid.uuid4()}")
            await self.here.client.start_workflow(
                BUILD_WORKFLOW, given, id=self._poison[-1], task_queue=self.harness.settings.temporal_task_queue
            )
        elif (build := await self._build(action)) is not None:
            self._struck[action.kind] += 1
            self.ended.add(build.id)
            if how == "terminated":
                await self.harness.handle(build.id).terminate("chaos")
                return
            async with self.here.sessions.begin() as session:
                await request_cancel(session, build.id)
            await self.harness.builds.cancel(build.id)

    # ---- the end

    async def end(self) -> None:
        """No fault any more; returns when every build has closed, its workflow too, or everybody has lost patience."""
        for asked in self.here.rig.glob("*"):
            if asked.suffix != ".reached":
                asked.unlink(missing_ok=True)
        for front in self._fronts:
            for proxy in front.values():
                proxy.heal()
        for workflow_id in self._poison:
            with suppress(RPCError):
                await self.here.client.get_workflow_handle(workflow_id).terminate("the end of chaos")
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not await self._all_ended():
                    await asyncio.sleep(0.5)

    async def _all_ended(self) -> bool:
        with suppress(*_MISSED):
            if await self._open():
                return False
            running = 'WorkflowType="BuildWorkflow" AND ExecutionStatus="Running"'
            return (await self.here.client.count_workflows(running)).count == 0
        return False


# ---- the command


def show(outcome: Outcome) -> None:
    """Print what a run came to."""
    struck, builds = sum(outcome.struck.values()), sum(outcome.builds.values())
    print(f"seed {outcome.seed}: {struck} faults of {len(outcome.struck)} kinds struck, {builds} builds ended")
    for name, number in sorted(outcome.struck.items()):
        print(f"  {number:6}  {name}")
    for name, number in sorted(outcome.builds.items()):
        print(f"  {number:6}  builds {name}")
    print(f"  after the last fault everything had ended within {outcome.seconds_to_the_end:.0f} s")
    for damage in outcome.damage:
        print(f"  DAMAGE  {damage}")
    if not outcome.damage:
        print("  everything holds")


def main() -> int:
    """The exit code."""
    # What the API would log of the nudges that get lost.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=180)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--runs", type=int, default=1)
    options.add_argument("--keep", type=Path, help="where to keep feeds, histories and logs of a run that shows damage")
    options.add_argument("--plan", action="store_true", help="print the plan only")
    given = options.parse_args()
    damaged = False
    for seed in range(given.seed, given.seed + given.runs):
        if given.plan:
            print(*planned(seed, given.seconds), sep="\n")
            continue
        outcome = asyncio.run(run_chaos(seed, given.seconds, given.keep))
        show(outcome)
        sys.stdout.flush()
        damaged = damaged or bool(outcome.damage)
    return int(damaged)


if __name__ == "__main__":
    exit_code = main()
    sys.stdout.flush()
    os._exit(exit_code)
