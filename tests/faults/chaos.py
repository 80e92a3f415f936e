"""Injects faults of all kinds at random moments into the real stack while builds run; then every build must close.

    python -m tests.faults.chaos [--seconds 180] [--seed 1] [--runs 1] [--only "operator:"] [--sandboxed] [--plan]
        [--watched]

The seed determines which faults come when (`--plan` only prints them), but not what each fault hits.
Prints the faults that struck and the outcomes of the builds. The exit code is 1 if an invariant does not hold, if no
build became ready or if no fault struck. `--runs`: the number of runs, one after the other, with consecutive seeds.
`--sandboxed`: run workflows in the SDK's sandbox, which production does without (ADR 0005).
`--watched`: a browser shows the builds, and at the end each page has to show what the API says.
"""

import argparse
import asyncio
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
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar, cast

import structlog
from sqlalchemy import select
from temporalio.client import WorkflowHistory
from temporalio.service import RPCError

from activities.runtime.crash_point import CrashPoint
from clients.cancellation import cancel_and_wait
from db.builds import request_cancel
from db.models import Build, Event, LedgerEntry
from db.transaction import transaction
from domain.names import BUILD_WORKFLOW, build_workflow_id
from domain.status import Status
from local.stack import PARTS, PartName
from tests.faults.cases import check_after_sweep, until_swept
from tests.faults.invariants import (
    Deliverable,
    check_no_secret,
    check_nothing_left,
    check_spending,
    deliverable_of,
)
from tests.faults.operators import Operator
from tests.faults.people import GOAL, MISSED, People, scripts
from tests.faults.plan import Action, plan_faults
from tests.faults.watcher import Watcher, watcher
from tests.harness.api_process import ApiProcess
from tests.harness.backup import BackupFailed
from tests.harness.disabled_safeguards import NEXT_VERSION
from tests.harness.fault_proxy import FaultProxy
from tests.harness.fault_waits import Damage, close_preview, until_closed
from tests.harness.faults import FaultHarness, Front, WorkerProcess, copy_tree, fault_harness, put_back
from tests.harness.history import runs_of
from tests.harness.namespaces import new_namespace
from tests.harness.reset import completed_tasks, reset
from tests.harness.rigged_worker import SANDBOXED
from tests.harness.wait import DEADLINE, wait_until

WORKERS = 2
_QUOTA = 4
"""Sandboxes that may run at once: those of three builds and one preview. Further previews have to make room."""

_STOP_SECONDS = 15.0
"""Kill a worker that an operator has stopped this many seconds ago."""

PATIENCE_SECONDS = 2 * DEADLINE
"""Seconds after the last fault within which every build must have closed."""

_ALLOWANCE_A_CYCLE = 60_000_000
"""Microdollars. A small plan, on which builds fall asleep."""

T = TypeVar("T")


@dataclass
class Outcome:
    """The result of a run. `damage` is empty if every invariant holds."""

    seed: int
    struck: Counter[str] = field(default_factory=Counter)
    builds: Counter[str] = field(default_factory=Counter)
    people: Counter[str] = field(default_factory=Counter)
    """What people did by the API."""
    recovered: Counter[str] = field(default_factory=Counter)
    """The steps of the operator's recoveries."""
    previews_with_secrets: int = 0
    """Starts of previews that had the forty planted secrets, which the products print in every form."""
    pages: int = 0
    """Builds that a browser has watched."""
    seconds_to_the_end: float = 0.0
    damage: list[str] = field(default_factory=list)


async def run_chaos(
    seed: int,
    seconds: float,
    keep: Path | None = None,
    *,
    plan: Sequence[Action] | None = None,
    sandboxed: bool = False,
    watched: bool = False,
) -> Outcome:
    """Run once in a harness of its own.

    Args:
        seed: determines the plan, and what people do.
        seconds: length of the run, without the time until all builds have closed.
        keep: where to store feeds, histories and logs if there is damage.
        plan: faults in place of the seed's.
        sandboxed: run workflows in the SDK's sandbox.
        watched: let a browser watch the builds. The console has to be built.
    """
    outcome = Outcome(seed)
    actions = plan_faults(seed, seconds) if plan is None else plan
    async with fault_harness(scripts(seed)) as faults:
        if sandboxed:
            (faults.rig / SANDBOXED).touch()
        chaos = Chaos(faults, random.Random(f"people of {seed}"))
        expected = await chaos.reference()
        async with chaos.watched() if watched else nullcontext() as pages, chaos.background():
            await chaos.strike(actions, seconds)
            began = monotonic()
            await chaos.end()
            outcome.seconds_to_the_end = monotonic() - began
            if pages is not None:
                outcome.damage += await pages.check()
                outcome.pages = len(pages.watched)
                if not outcome.pages:
                    outcome.damage.append("the browser has opened no page of a build")
        await judge_builds(faults, chaos, expected, outcome)
        if keep is not None and outcome.damage:
            await keep_evidence(faults, keep / f"seed-{seed}", outcome)
    return outcome


async def judge_builds(faults: FaultHarness, chaos: "Chaos", expected: Deliverable, outcome: Outcome) -> None:
    """Check every build in the database, then the stack, and add what was found to the outcome."""
    outcome.damage += [*chaos.damage, *chaos.operator.damage, *await chaos.operator.missing()]
    outcome.struck, outcome.people = chaos.struck(), chaos.people.done
    outcome.recovered = chaos.operator.steps
    outcome.previews_with_secrets = faults.previews_with_secrets()

    async def note(what: str, check: Awaitable[None]) -> None:
        try:
            await check
        except Damage as damage:
            outcome.damage += [f"{what}: {each}" for each in damage.findings]
        except Exception as error:
            outcome.damage.append(f"{what} could not be checked: {error!r}")

    async def judge(build: Build) -> None:
        async with at_once:
            # A build that was cancelled too late becomes ready.
            is_cut_off = build.id in chaos.ended | chaos.people.cancelled or chaos.operator.has_lost_row(build)
            ended = is_cut_off and build.status != Status.READY
            deliverable = None if ended or chaos.people.has_own_outcome(build) else expected
            past = chaos.operator.past_of(build)
            # A workflow that was lost after its build was ready may not have released the workspace: the reaper does.
            check = until_swept if ended or past.lost or not past.has_history else check_after_sweep
            await note(f"build {build.id}", check(faults, build.id, deliverable, past))
            outcome.damage += [f"build {build.id}: {each}" for each in await chaos.people.forgotten(build.id)]
            await close_preview(chaos.harness, build.id)

    at_once = asyncio.Semaphore(4)
    async with transaction(faults.sessions) as tx:
        builds = (await tx.session.scalars(select(Build).order_by(Build.created_at))).all()
    outcome.builds.update(build.status for build in builds)
    await asyncio.gather(*map(judge, builds))
    await note("money", check_spending(faults, chaos.people.lost_top_ups))
    await note("secrets", check_no_secret(faults))
    await chaos.end_processes()
    await note("the end", check_nothing_left(faults))
    if not outcome.builds[Status.READY]:
        outcome.damage.append("nothing progressed: no build became ready")
    if not outcome.struck:
        outcome.damage.append("no fault struck")


async def keep_evidence(faults: FaultHarness, directory: Path, outcome: Outcome) -> None:
    """Keep what explains the damage: the feed, ledger and histories of each build, the model's requests and what it has
    served, and the logs of workers and servers. If that fails, the outcome says so and is shown all the same."""
    try:
        await _keep(faults, directory)
    except Exception as error:
        outcome.damage.append(f"not all evidence could be kept: {error!r}")


async def _keep(faults: FaultHarness, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - of this machine's disk, like all here
    async with transaction(faults.sessions) as tx:
        ids = (await tx.session.scalars(select(Build.id))).all()
        for build_id in ids:
            events = await tx.session.scalars(select(Event).where(Event.build_id == build_id).order_by(Event.id))
            lines = [
                f"{each.created_at:%H:%M:%S.%f} {each.turn} {each.type} {json.dumps(each.data)}" for each in events
            ]
            (directory / f"{build_id}.feed").write_text("\n".join(lines))
            entries = await tx.session.scalars(
                select(LedgerEntry).where(LedgerEntry.build_id == build_id).order_by(LedgerEntry.opened_at)
            )
            (directory / f"{build_id}.ledger").write_text("\n".join(map(_ledger_line, entries)))
            with suppress(RPCError):  # it was lost with its namespace
                async for run_id, run in runs_of(faults.client, str(build_id)):
                    history = WorkflowHistory(build_workflow_id(build_id), run)
                    (directory / f"{build_id}.{run_id}.json").write_text(history.to_json())
    for log in (
        *faults.directory.glob("*.log"),
        *(faults.stack.data / "logs").glob("*.log"),
        faults.oracle / "started.jsonl",
        faults.stack.directory("model") / "served.jsonl",
    ):
        await asyncio.to_thread(shutil.copy, log, directory)
    await asyncio.to_thread(shutil.copytree, faults.bodies, directory / "requests", dirs_exist_ok=True)


def _ledger_line(entry: LedgerEntry) -> str:
    call = f"{entry.opened_at:%H:%M:%S.%f} {entry.kind} {entry.turn} {entry.state}"
    return f"{call} {entry.cost} {entry.request_id} {entry.id}"


class Chaos:
    """Runs workers, people and builds on the stack, and strikes them with faults."""

    def __init__(self, faults: FaultHarness, rng: random.Random) -> None:
        self.faults = faults
        self.harness = faults.harness()
        self.harness.plants_secrets = True
        self.ended: set[uuid.UUID] = set()
        """Builds that were cancelled or terminated."""
        self.damage: list[str] = []
        """What went wrong while faults struck."""
        self._wrong_namespace: str | None = None
        self._rng = rng
        self._struck: Counter[str] = Counter()
        self._fronts: list[Front] = []
        self._workers: list[WorkerProcess] = []
        self._newer = False
        self._reverts_due = 0
        self._copied: set[uuid.UUID] = set()
        self._locks: dict[PartName, asyncio.Lock] = {part: asyncio.Lock() for part in PARTS}
        self._cutting_off = asyncio.Lock()
        self._replacing = asyncio.Lock()
        self._is_calm = asyncio.Event()
        self._is_calm.set()
        self._poison: list[str] = []

    # ---- what goes on during the faults

    async def reference(self) -> Deliverable:
        """Run the first build without faults and return its deliverable, which all others must deliver too."""
        self._fronts = [await self.faults.front() for _ in range(WORKERS)]
        await self._open_api()
        self._workers = [
            await self.faults.worker(self.harness, front, is_rigged=True, **self.settings) for front in self._fronts
        ]
        plan = await self.harness.plan(_ALLOWANCE_A_CYCLE)
        self.people.projects = {await self.harness.founder(): [], await self.harness.founder(plan): []}
        build_id = await self.harness.start(goal=GOAL)
        await until_closed(self.harness, build_id)
        try:
            await wait_until(lambda: self.faults.previews_with_secrets() > 0)
        except TimeoutError:
            self.damage.append("the preview of the first build was not started with the planted secrets")
        return await deliverable_of(self.faults, build_id)

    async def _open_api(self) -> None:
        self._api_front = await self.faults.front()
        self._api = ApiProcess(self.faults, self._api_front, self.harness.settings.temporal_task_queue)
        self.people = People(self.faults, self.harness, self._api, self._rng)
        self.operator = Operator(
            *(self.faults, self.harness, self.people), self._locks, self._programs_stopped, self.settings
        )

    @property
    def settings(self) -> dict[str, str]:
        """Settings of the workers."""
        return {"CONTINUE_AS_NEW_TURNS": "3", "SANDBOX_MAX_SECONDS": "60", "SANDBOX_QUOTA": str(_QUOTA)}

    @asynccontextmanager
    async def background(self) -> AsyncIterator[None]:
        """Replace dead workers, start builds, and do what builds wait for people to do, while the block runs."""
        people = self.people
        loops = [
            *(self._replace_workers(), self._replace_api()),
            *(people.start_builds(), people.act(self._look_at), people.say_things(), people.restore_things()),
        ]
        tasks = [asyncio.create_task(loop) for loop in loops]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception):
                    raise result

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[Watcher]:
        """Let a browser watch the builds while the block runs."""
        async with watcher(self.faults, self._api, self.people) as watching:
            opening = asyncio.create_task(watching.watch())
            try:
                yield watching
            finally:
                await cancel_and_wait(opening)

    async def end_processes(self) -> None:
        """End the workers and the API. Call it when all builds have closed."""
        await asyncio.gather(self._api.end(), *(worker.end() for worker in self._workers))

    async def _replace_api(self) -> None:
        while True:
            async with self._replacing:
                if not self._api.is_running:
                    await self._api.launch()
            await asyncio.sleep(0.5)

    @asynccontextmanager
    async def _programs_stopped(self) -> AsyncIterator[None]:
        """Keep every worker and the API stopped, and begin no other fault, while the block runs."""
        number = self._rng.choice((signal.SIGTERM, signal.SIGKILL))
        self._is_calm.clear()
        try:
            async with self._replacing:
                await asyncio.gather(
                    self._api.stop(number), *(worker.end(number, kill_after=_STOP_SECONDS) for worker in self._workers)
                )
                yield
        finally:
            self._is_calm.set()

    async def _look_at(self, build: Build) -> None:
        """Copy the files of a workspace while it is used, and revert them while it waits, if a revert is due."""
        if build.status in (Status.NEEDS_INPUT, Status.SLEEPING):
            await self._revert(build)
        elif build.id not in self._copied and build.sandbox_id is not None:
            await self._copy(build)

    async def _replace_workers(self) -> None:
        while True:
            async with self._replacing:
                for number, worker in enumerate(self._workers):
                    if not worker.is_running:
                        without = NEXT_VERSION if self._newer else ""
                        self._workers[number] = self.faults.launch(
                            self.harness, self._fronts[number], without=without, is_rigged=True, **self.settings
                        )
            await asyncio.sleep(0.5)

    # ---- the state of builds and faults

    def _one_of(self, items: Sequence[T], action: Action) -> T | None:
        return items[int(action.target * len(items))] if items else None

    async def _build(self, action: Action) -> Build | None:
        return self._one_of(await self.people.open_builds(), action)

    def struck(self) -> Counter[str]:
        """How often each kind of fault has struck."""
        struck = self._struck.copy()
        for point in self.faults.crashed():
            struck[f"crash at: {point}"] += 1
        for line in self.faults.served():
            if line["fault"]:
                struck[f"model: {line['fault']}"] += 1
        return struck

    # ---- faults

    async def strike(self, actions: Sequence[Action], seconds: float) -> None:
        """Strike each fault at its moment. Returns when the time of the plan is over and the last fault has ended."""
        began = monotonic()
        async with asyncio.TaskGroup() as striking:
            for action in actions:
                await asyncio.sleep(max(0.0, began + action.at - monotonic()))
                striking.create_task(self._try(action))
            await asyncio.sleep(max(0.0, began + seconds - monotonic()))
            self.people.starting = False

    async def _try(self, action: Action) -> None:
        await self._is_calm.wait()
        with suppress(*MISSED):
            await self._apply(action)

    def _apply(self, action: Action) -> Coroutine[Any, Any, None]:
        what, _, which = action.kind.partition(": ")
        match what:
            case "worker":
                return self._strike_worker(action, which)
            case "api":
                return self._strike_api(action, which)
            case "crash at":
                return self._crash_at(action, cast("CrashPoint", which))
            case "model":
                return self.harness.rehearse("faults", {"kind": which, "seconds": 300})
            case "killed":
                return self._kill_server(cast("PartName", which))
            case "quota":
                return self._lower_quota(action)
            case "outage":
                return self._cut_off(action)
            case "operator":
                return self._have_operator_act(action, which)
            case "hangs":
                return self._hang(action, cast("PartName", which))
            case "workspace":
                return self._strike_workspace(action, which)
            case "workflow":
                return self._strike_workflow(action, which)
            case _:
                part = cast("PartName", what.removeprefix("to "))
                all_of_them = action.target < 0.5
                fronts = (
                    [*self._fronts, self._api_front] if all_of_them else [self._fronts[int(action.target * WORKERS)]]
                )
                return self._strike_connections([front[part] for front in fronts], action, which)

    async def _strike_worker(self, action: Action, how: str) -> None:
        if how == "in the wrong namespace":
            await self._start_in_wrong_namespace()
            return
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

    async def _have_operator_act(self, action: Action, which: str) -> None:
        """Lose something that all builds depend on, once there are builds, and recover."""
        await wait_until(self._has_builds, look_seconds=0.5)
        self._struck[action.kind] += 1
        try:
            if which == "namespace lost":
                await self.operator.lose_namespace()
                self._wrong_namespace = None  # it was lost too
            else:
                await self.operator.put_back_database(action.seconds)
        except (*MISSED, BackupFailed, TimeoutError) as error:
            self.damage.append(f"{action.kind}: {error!r}")

    async def _has_builds(self) -> bool:
        with suppress(*MISSED):  # the database may be down
            return bool(await self.people.open_builds())
        return False

    async def _start_in_wrong_namespace(self) -> None:
        """Start a worker on this database and another namespace, as a retyped profile does. It must refuse."""
        self._wrong_namespace = self._wrong_namespace or await new_namespace(self.faults.stack)
        self._struck["worker: in the wrong namespace"] += 1
        worker = self.faults.launch(
            self.harness, self._fronts[0], is_rigged=True, **self.settings, TEMPORAL_NAMESPACE=self._wrong_namespace
        )
        try:
            async with asyncio.timeout(DEADLINE):
                while worker.is_running and not worker.has_started:
                    await asyncio.sleep(0.2)
        finally:
            if worker.has_started:
                self.damage.append("a worker serves a namespace that its database is not bound to")
            await worker.end(signal.SIGKILL)

    async def _strike_api(self, action: Action, how: str) -> None:
        if self._api.is_running:
            self._struck[action.kind] += 1
            self._api.send(signal.SIGKILL if how == "SIGKILL" else signal.SIGTERM)

    async def _crash_at(self, action: Action, point: CrashPoint) -> None:
        if (build := await self._build(action)) is not None:
            self.faults.ask(point, build.id, "kill")

    async def _kill_server(self, part: PartName) -> None:
        async with self._locks[part]:
            self._struck[f"killed: {part}"] += 1
            self.faults.stack.kill(part, signal.SIGQUIT if part == "postgres" else signal.SIGKILL)
            await asyncio.sleep(0.5)
            await self.faults.stack.restart(part)

    async def _hang(self, action: Action, part: PartName) -> None:
        async with self._locks[part]:
            self._struck[f"hangs: {part}"] += 1
            self.faults.stack.kill(part, signal.SIGSTOP)
            await asyncio.sleep(action.seconds)
            self.faults.stack.kill(part, signal.SIGCONT)

    async def _lower_quota(self, action: Action) -> None:
        """Let the sandbox service refuse to run more than one sandbox, although the workers' own quota is higher."""
        limit = self.faults.oracle / "max-running"
        self._struck[action.kind] += 1
        limit.write_text("1")
        await asyncio.sleep(action.seconds)
        limit.unlink(missing_ok=True)

    async def _cut_off(self, action: Action) -> None:
        """Keep every program from one of the servers for long. The server itself goes on."""
        part = PARTS[int(action.target * len(PARTS))]
        async with self._cutting_off:
            self._struck[f"outage: long, of {part}"] += 1
            proxies = [front[part] for front in (*self._fronts, self._api_front)]
            for proxy in proxies:
                proxy.take_down()
            await asyncio.sleep(action.seconds)
            for proxy in proxies:
                proxy.is_down = False

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
        elif (sandbox := self._one_of(await self.faults.sandboxes.list_all(), action)) is not None:
            self._struck[action.kind] += 1
            await (self.faults.sandboxes.kill if how == "sandbox killed" else self.faults.sandboxes.pause)(sandbox.id)

    async def _copy(self, build: Build) -> None:
        """Copy the files of a workspace, so that they can be reverted to this moment later."""
        if await self.harness.events(build.id, "tool_done"):
            self._copied.add(build.id)
            await copy_tree(self._home(build), self._copy_of(build))

    async def _revert(self, build: Build) -> None:
        """Revert the files of a paused workspace to the copy made earlier, if a revert is due."""
        if not self._reverts_due or build.id not in self._copied or not self._home(build).exists():
            return
        listed = await self.faults.sandboxes.list_all()
        if (build.sandbox_id, "paused") not in {(each.id, each.state) for each in listed}:
            return
        self._reverts_due -= 1
        self._struck["workspace: files reverted"] += 1
        await put_back(self._copy_of(build), self._home(build))

    def _home(self, build: Build) -> Path:
        return self.faults.sandbox_directory(build.sandbox_id or "-") / "home"

    def _copy_of(self, build: Build) -> Path:
        return self.faults.directory / f"earlier-{build.id}"

    async def _strike_workflow(self, action: Action, how: str) -> None:
        if how == "a poison one":
            self._struck[action.kind] += 1
            payload = {"build_id": str(uuid.uuid4())} if action.target < 0.5 else ["no build"]
            self._poison.append(f"build-{uuid.uuid4()}")
            await self.faults.client.start_workflow(
                BUILD_WORKFLOW, payload, id=self._poison[-1], task_queue=self.harness.settings.temporal_task_queue
            )
        elif (build := await self._build(action)) is None:
            return
        elif how == "reset":
            workflow_id = build_workflow_id(build.id)
            if tasks := await completed_tasks(self.faults.client, workflow_id):
                await reset(self.faults.client, workflow_id, self._rng.choice(tasks))
                self._struck[action.kind] += 1
        else:
            self._struck[action.kind] += 1
            self.ended.add(build.id)
            if how == "terminated":
                await self.harness.handle(build.id).terminate("chaos")
                return
            async with transaction(self.faults.sessions) as tx:
                await request_cancel(tx, build.id)
            await self.harness.builds.cancel(build.id)

    # ---- the end

    async def end(self) -> None:
        """Stop all faults, and wait until every build and its workflow have closed or PATIENCE_SECONDS are over."""
        for request in self.faults.rig.glob("*"):
            if request.suffix != ".reached":
                request.unlink(missing_ok=True)
        for front in (*self._fronts, self._api_front):
            for proxy in front.values():
                proxy.heal()
        for workflow_id in self._poison:
            with suppress(RPCError):
                await self.faults.client.get_workflow_handle(workflow_id).terminate("the end of chaos")
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not await self._all_ended():
                    await asyncio.sleep(0.5)

    async def _all_ended(self) -> bool:
        with suppress(*MISSED):
            if await self.people.open_builds():
                return False
            running = 'WorkflowType="BuildWorkflow" AND ExecutionStatus="Running"'
            return (await self.faults.client.count_workflows(running)).count == 0
        return False


# ---- the command


def show(outcome: Outcome) -> None:
    """Print the result of a run."""
    struck, builds = sum(outcome.struck.values()), sum(outcome.builds.values())
    print(f"seed {outcome.seed}: {struck} faults of {len(outcome.struck)} kinds struck, {builds} builds ended")
    for name, number in sorted(outcome.struck.items()):
        print(f"  {number:6}  {name}")
    for name, number in sorted(outcome.builds.items()):
        print(f"  {number:6}  builds {name}")
    for name, number in sorted(outcome.people.items()):
        print(f"  {number:6}  {name} by the API")
    for name, number in sorted(outcome.recovered.items()):
        print(f"  {number:6}  {name} by cofounder recover")
    print(f"  {outcome.previews_with_secrets:6}  previews started with planted secrets")
    if outcome.pages:
        print(f"  {outcome.pages:6}  pages of builds in a browser")
    print(f"  every build had closed within {outcome.seconds_to_the_end:.0f} s after the last fault")
    for damage in outcome.damage:
        print(f"  DAMAGE  {damage}")
    if not outcome.damage:
        print("  every invariant holds")


def main() -> int:
    """Return the exit code."""
    # Hide what the API logs about lost nudges.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="directory for the feeds, histories and logs of a run with damage")
    parser.add_argument("--only", default="", help="inject only faults whose kind has these words")
    parser.add_argument("--sandboxed", action="store_true", help="run workflows in the SDK's sandbox")
    parser.add_argument("--watched", action="store_true", help="compare the builds' pages in a browser with the API")
    parser.add_argument("--plan", action="store_true", help="print the plan only")
    options = parser.parse_args()
    damaged = False
    for seed in range(options.seed, options.seed + options.runs):
        plan = plan_faults(seed, options.seconds, options.only)
        if options.plan:
            print(*plan, sep="\n")
            continue
        outcome = asyncio.run(
            run_chaos(
                *(seed, options.seconds, options.keep),
                plan=plan,
                sandboxed=options.sandboxed,
                watched=options.watched,
            )
        )
        show(outcome)
        sys.stdout.flush()
        damaged = damaged or bool(outcome.damage)
    return int(damaged)


if __name__ == "__main__":
    exit_code = main()
    sys.stdout.flush()
    os._exit(exit_code)
