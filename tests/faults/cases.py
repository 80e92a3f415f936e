"""Each fault alone. A group has its own task queue and workers, so that its faults do not affect other groups.

Cases that need the same fault share it: one SIGKILL strikes all builds that are held, each at a different point.
"""

import asyncio
import signal
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, get_args

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from temporalio.service import RPCError

from activities.runtime.crash_point import CrashPoint
from db.models import Build, Snapshot, ToolCall, Turn
from db.transaction import transaction
from domain.names import BUILD_WORKFLOW
from domain.status import Status
from local.rehearsal.control import FaultKind
from local.stack import PARTS, PartName
from tests.faults.invariants import LEFT_OBJECT, Deliverable, check_build
from tests.faults.recovered import Past
from tests.faults.report import Report, side_by_side
from tests.harness.disabled_safeguards import NEXT_VERSION, SNAPSHOT_ATTEMPTED
from tests.harness.fault_proxy import FaultProxy
from tests.harness.fault_waits import LONG, Damage, hold_file_of, until_calling, until_closed, until_command_held
from tests.harness.faults import FaultHarness, Front, WorkerProcess, copy_tree, put_back
from tests.harness.sample_build import sample_script
from tests.harness.wait import DEADLINE, wait_until
from tests.harness.worker import WorkerHarness

TIMES = 3
"""Strike a build's connections to a server this many times in each way."""

_BUILDS_TO_STRIKE = 6
"""Start at most this many builds one after the other, until a server's connections have been struck in every way."""

POINTS: tuple[CrashPoint, ...] = get_args(CrashPoint)

BEFORE_WRITE: tuple[CrashPoint, ...] = (
    "think.after_call",
    "compact.after_call",
    "judge.after_call",
    "dispatch.acted",
    "snapshot.uploaded",
)
"""Crash points at which an attempt has done everything except record the result."""

ONE_A_STEP: tuple[CrashPoint, ...] = (
    *BEFORE_WRITE,
    *("dispatch.intended", "permit.taken", "workspace.made", "gate.recorded", "finish_build.committed"),
)
"""A crash point of each kind of activity. A command has two: it may or may not have begun."""

Group = Callable[[Report], Coroutine[Any, Any, None]]
"""Cases that share a task queue and its workers."""


async def each_kind_of_fault(report: Report) -> None:
    """Strike each kind of fault once, and kill the worker in each kind of activity. The report has the results.

    Connections are struck to two servers: Postgres, which every step needs, and the sandbox, in which commands run
    meanwhile.
    """
    await _beside_the_reference(
        report,
        partial(worker_killed, points=ONE_A_STEP),
        partial(worker_stopped, points=("think.after_call", "snapshot.uploaded")),
        model_faults,
        store_refuses,
        partial(connection_faults, parts=("postgres", "sandbox"), times=1),
        files_reverted,
        workflow_terminated,
    )


async def more_of_each_fault(report: Report) -> None:
    """The cases that `each_kind_of_fault` leaves out, except those that kill a server."""
    await _beside_the_reference(
        report,
        worker_killed,
        worker_stopped,
        store_is_slow,
        partial(connection_faults, parts=PARTS),
        next_version_joins,
        sandbox_vanishes,
    )


async def _beside_the_reference(report: Report, *groups: Group) -> None:
    fault_harness = report.fault_harness
    harness = fault_harness.harness()
    worker = await fault_harness.worker(harness)
    await side_by_side(report.reference(harness), *(group(report) for group in groups))
    await worker.end()


async def each_server_killed(report: Report) -> None:
    """Kill each server. These cases run one after the other, as a dead server affects every build."""
    fault_harness = report.fault_harness
    harness = fault_harness.harness()
    worker = await fault_harness.worker(harness)
    await report.reference(harness)
    await worker.end()
    for part in ("postgres", "temporal", "sandbox"):
        await server_killed(report, part)


# ---- the worker


async def worker_killed(report: Report, points: Sequence[CrashPoint] = POINTS) -> None:
    """SIGKILL at these crash points, in a model call and in a command."""
    fault_harness, harness = report.fault_harness, report.fault_harness.harness()
    worker = await fault_harness.worker(harness, STREAM_IDLE_SECONDS=LONG)
    at = {point: await start_held(fault_harness, harness, point) for point in points}
    calling = await harness.start(script=sample_script(), faults=[{"kind": "stall", "seconds": 300, "after": 1}])
    running = await harness.start(script=sample_script(hold=True))
    await until_calling(fault_harness, harness, calling, turn=2)
    hold_file = await until_command_held(fault_harness, harness, running)
    await until_held(fault_harness, at)
    await worker.end(signal.SIGKILL)
    hold_file.unlink()
    successor = await fault_harness.worker(harness)
    await side_by_side(
        *(report.ready(f"SIGKILL at {point}", harness, build_id) for point, build_id in at.items()),
        report.ready("SIGKILL in the model call", harness, calling),
        report.ready("SIGKILL in bash", harness, running),
    )
    await successor.end()


async def worker_stopped(report: Report, points: Sequence[CrashPoint] = BEFORE_WRITE) -> None:
    """SIGSTOP until the heartbeat times out, then SIGCONT: by then another worker has taken over."""
    fault_harness, harness = report.fault_harness, report.fault_harness.harness()
    front = await fault_harness.front()
    stale = await fault_harness.worker(harness, front)
    at = {point: await start_held(fault_harness, harness, point) for point in points}
    running = await harness.start(script=sample_script(hold=True))
    hold_file = await until_command_held(fault_harness, harness, running)
    before = await claims_of(harness, running)
    fresh = await take_over(
        fault_harness, harness, stale, front, at, lambda: until_claims_change(harness, running, before)
    )
    hold_file.unlink()
    for point, build_id in at.items():
        fault_harness.release(point, build_id)
    await side_by_side(
        *(report.ready(f"SIGSTOP and SIGCONT at {point}", harness, build_id) for point, build_id in at.items()),
        report.ready("SIGSTOP and SIGCONT in bash", harness, running),
    )
    await side_by_side(stale.end(), fresh.end())


async def take_over(
    fault_harness: FaultHarness,
    harness: WorkerHarness,
    stale: WorkerProcess,
    front: Front,
    at: Mapping[CrashPoint, uuid.UUID],
    also_wait: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0),
    *,
    until_acted: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(3),
    without: str = "",
) -> WorkerProcess:
    """Stop a worker while builds are held at points, continue it once another is held there, and return the other.

    Temporal can't tell the stale worker at once that its attempts are over: they go on and try to write.
    `also_wait` waits for whatever else must be taken over. `until_acted` waits until the stale attempts have written or
    were refused.
    """
    await until_held(fault_harness, at)
    stale.send(signal.SIGSTOP)
    front["temporal"].cut()  # ends its polls: an answered one would take an attempt that no worker then makes
    for point, build_id in at.items():
        fault_harness.release(point, build_id)  # takes effect once it continues
        fault_harness.ask(point, build_id, "hold")
    fresh = await fault_harness.worker(harness, without=without)
    await until_held(fault_harness, at)
    await also_wait()
    front["temporal"].blackhole()
    stale.send(signal.SIGCONT)
    await until_acted()
    front["temporal"].heal()
    return fresh


async def until_held(fault_harness: FaultHarness, at: Mapping[CrashPoint, uuid.UUID]) -> None:
    """Wait until each of these builds is held at its crash point."""
    await wait_until(lambda: all(fault_harness.has_reached(point, build_id) for point, build_id in at.items()))


async def next_version_joins(report: Report) -> None:
    """A worker of the next version starts in the middle of a call, and the older one shuts down."""
    fault_harness, harness = report.fault_harness, report.fault_harness.harness()
    old = await fault_harness.worker(harness)
    build_id = await harness.start(script=sample_script(hold=True))
    hold_file = await until_command_held(fault_harness, harness, build_id)
    new = await fault_harness.worker(harness, without=NEXT_VERSION)
    await old.end()
    hold_file.unlink()
    await report.ready("a newer worker mid-build", harness, build_id)
    await new.end()


# ---- the model

_KINDS = (
    ("overloaded", "rate_limited", "server_error", "stream_error", "cut"),
    ("early_end", "stall", "broken_tool_json", "max_tokens", "empty"),
    ("pause_turn", "unknown_stop_reason", "refusal", "context_exceeded"),
    ("spend_limit", "authentication"),
)
assert {kind for kinds in _KINDS for kind in kinds} == set(get_args(FaultKind))


async def model_faults(report: Report) -> None:
    """Every way in which the model can fail, while workflows with an invalid input keep failing on the same queue."""
    fault_harness, harness = report.fault_harness, report.fault_harness.harness()
    worker = await fault_harness.worker(harness, STREAM_IDLE_SECONDS="3")
    poison = [
        await harness.client.start_workflow(
            BUILD_WORKFLOW, payload, id=f"build-{uuid.uuid4()}", task_queue=harness.settings.temporal_task_queue
        )
        for payload in ({"build_id": str(uuid.uuid4())}, {"build_id": "no id"}, ["no build"])
    ]

    async def one(kinds: tuple[str, ...]) -> None:
        faults = [{"kind": kind, "after": 2 * number, "seconds": 300} for number, kind in enumerate(kinds)]
        build_id = await harness.start(script=sample_script(), faults=faults)
        await report.ready(f"the model: {', '.join(kinds)}", harness, build_id, wake=True)
        served = {line["fault"] for line in fault_harness.served()}
        async with report.case(f"struck: {', '.join(kinds)}"):
            assert served >= set(kinds), served

    await side_by_side(*(one(kinds) for kinds in _KINDS))
    for handle in poison:
        with suppress(RPCError):
            await handle.terminate("the end of a test")
    await worker.end()


# ---- connections and servers


async def store_refuses(report: Report) -> None:
    """S3 answers 503, which passes, and then 403, which a person has to look at."""
    fault_harness, harness = report.fault_harness, report.fault_harness.harness()
    front = await fault_harness.front()
    worker, s3 = await fault_harness.worker(harness, front), front["s3"]

    s3.refuse(503)
    build_id = await harness.start(script=sample_script())
    await wait_until(lambda: s3.struck["503"] >= 3)
    s3.heal()
    await report.ready("S3 answers 503", harness, build_id)

    s3.refuse(403)
    build_id = await harness.start(script=sample_script())
    row = await harness.until(build_id, frozenset({Status.NEEDS_INPUT}))
    s3.heal()
    async with report.case("S3's 403 is for a person"):
        assert (row.status, row.waiting_for) == (Status.NEEDS_INPUT, "store"), row.reason
    await report.ready("S3 answers 403", harness, build_id, wake=True)
    await worker.end()


async def store_is_slow(report: Report) -> None:
    """S3 answers each request late."""
    fault_harness, harness = report.fault_harness, report.fault_harness.harness()
    front = await fault_harness.front()
    worker, s3 = await fault_harness.worker(harness, front), front["s3"]
    s3.delay_seconds = 0.2
    await report.ready("S3 is slow", harness, await harness.start(script=sample_script()))
    assert s3.struck["delay"]
    await worker.end()


async def connection_faults(report: Report, parts: Sequence[PartName], times: int = TIMES) -> None:
    """Connections are slow, answers are lost after the request took effect, connections are cut, and nothing arrives
    for a while. `times`: how often each of the first three happens."""

    async def one(part: PartName) -> None:
        fault_harness, harness = report.fault_harness, report.fault_harness.harness()
        front = await fault_harness.front()
        worker, proxy = await fault_harness.worker(harness, front), front[part]
        striking = asyncio.create_task(_strike(proxy, times))
        # How many faults strike one build depends on whether the build or the proxy is faster.
        for number in range(1, _BUILDS_TO_STRIKE + 1):
            build_id = await harness.start(script=sample_script())
            await report.ready(f"connections to {part}, build {number}", harness, build_id, wake=True)
            if striking.done():
                break
        striking.cancel()
        async with report.case(f"struck: connections to {part}"):
            assert proxy.struck.keys() >= {"delay", "answer lost", "cut", "blackhole"}, proxy.struck
        await worker.end()

    await side_by_side(*(one(part) for part in parts))


async def _strike(proxy: FaultProxy, times: int) -> None:
    """Strike the traffic in one way after the other."""
    proxy.delay_seconds = 0.1
    while proxy.struck["delay"] < times:
        await asyncio.sleep(0.05)
    proxy.heal()
    while proxy.struck["answer lost"] < times:
        proxy.answers_to_lose = 1
        await asyncio.sleep(0.3)
    while proxy.struck["cut"] < times:
        proxy.cut()
        await asyncio.sleep(0.3)
    proxy.blackhole()
    while not proxy.struck["blackhole"]:
        await asyncio.sleep(0.05)
    await asyncio.sleep(2)
    proxy.heal()


async def server_killed(report: Report, part: PartName) -> None:
    """A server dies and comes back while one build runs a command and another is about to write an answer."""
    fault_harness, harness = report.fault_harness, report.fault_harness.harness()
    worker = await fault_harness.worker(harness)
    writing = await start_held(fault_harness, harness, "think.after_call")
    running = await harness.start(script=sample_script(hold=True))
    hold_file = await until_command_held(fault_harness, harness, running)
    await until_held(fault_harness, {"think.after_call": writing})
    # SIGQUIT is `pg_ctl stop -m immediate`.
    fault_harness.stack.kill(part, signal.SIGQUIT if part == "postgres" else signal.SIGKILL)
    fault_harness.release("think.after_call", writing)
    hold_file.unlink()
    await asyncio.sleep(1)
    await fault_harness.stack.restart(part)
    releasing = asyncio.create_task(keep_releasing(fault_harness, harness, running))
    await side_by_side(
        report.ready(f"{part} is killed while an answer is to be written", harness, writing),
        report.ready(f"{part} is killed while a command runs", harness, running),
    )
    releasing.cancel()
    await worker.end()


async def keep_releasing(fault_harness: FaultHarness, harness: WorkerHarness, build_id: uuid.UUID) -> None:
    """Release the build's command whenever it waits: the agent repeats a lost command, which then waits again."""
    while True:
        with suppress(SQLAlchemyError, OSError):
            row = await harness.row(build_id)
            hold_file_of(fault_harness, row.sandbox_id).unlink(missing_ok=True)
        await asyncio.sleep(0.1)


# ---- the sandbox and the workflow


async def files_reverted(report: Report, without: str = "") -> None:
    """A paused sandbox resumes with the files of an earlier moment."""
    fault_harness, harness = report.fault_harness, report.fault_harness.harness()
    worker = await fault_harness.worker(harness, without=without)
    faults = [{"kind": "unknown_stop_reason", "after": 2}]
    build_id = await harness.start(
        script=sample_script(), faults=faults, prepare=_to_hold(fault_harness, "dispatch.acted")
    )
    await until_reverted(fault_harness, harness, build_id)
    await report.ready(without or "files are reverted on resume", harness, build_id, wake=True)
    await worker.end()


async def sandbox_vanishes(report: Report) -> None:
    """A sandbox vanishes while a command runs in it."""
    fault_harness, harness = report.fault_harness, report.fault_harness.harness()
    worker = await fault_harness.worker(harness)
    build_id = await harness.start(script=sample_script(hold=True))
    await until_command_held(fault_harness, harness, build_id)
    await fault_harness.sandboxes.kill((await harness.row(build_id)).sandbox_id or "-")
    releasing = asyncio.create_task(keep_releasing(fault_harness, harness, build_id))
    await report.ready("a sandbox vanishes", harness, build_id)
    releasing.cancel()
    await worker.end()


async def until_reverted(fault_harness: FaultHarness, harness: WorkerHarness, build_id: uuid.UUID) -> None:
    """Wait until the build waits for a person, then revert its files to their state after its first call, at which
    it is held."""
    await until_held(fault_harness, {"dispatch.acted": build_id})
    home = fault_harness.sandbox_directory((await harness.row(build_id)).sandbox_id or "-") / "home"
    earlier = fault_harness.directory / f"earlier-{build_id}"
    await copy_tree(home, earlier)
    fault_harness.release("dispatch.acted", build_id)
    await harness.until(build_id, frozenset({Status.NEEDS_INPUT}))
    await put_back(earlier, home)


async def workflow_terminated(report: Report) -> None:
    """An operator terminates workflows, and the worker is killed when it has just uploaded a snapshot: the rows are
    closed, and the sandboxes and the objects that belong to no snapshot are deleted."""
    fault_harness, harness = report.fault_harness, report.fault_harness.harness()
    worker = await fault_harness.worker(harness)
    in_bash = await harness.start(script=sample_script(hold=True))
    uploaded = await start_held(fault_harness, harness, "snapshot.uploaded")
    await until_command_held(fault_harness, harness, in_bash)
    await until_held(fault_harness, {"snapshot.uploaded": uploaded})
    for build_id in (in_bash, uploaded):
        await harness.handle(build_id).terminate("an operator's decision")
    await worker.end(signal.SIGKILL)
    successor = await fault_harness.worker(harness)
    async with report.case("a workflow is terminated"):
        for build_id in (in_bash, uploaded):
            await until_closed(harness, build_id)
            await until_swept(fault_harness, build_id)
    await successor.end()


async def until_swept(
    fault_harness: FaultHarness, build_id: uuid.UUID, expected: Deliverable | None = None, past: Past | None = None
) -> None:
    """Wait until the reaper has cleaned up after a build that was ended from outside, and check the build.

    A ready build keeps the sandbox of its preview.
    """
    deadline = monotonic() + DEADLINE
    async with transaction(fault_harness.sessions) as tx:
        is_ready = (await tx.session.get_one(Build, build_id)).status == Status.READY
    while True:
        try:
            await check_build(fault_harness, build_id, expected, past)
            left = [each.id for each in await fault_harness.sandboxes.list_all() if each.build_id == str(build_id)]
            if not left or is_ready:
                return
            problem = Damage([f"sandbox {left[0]} has outlived its build"])
        except Damage as damage:
            problem = damage
        if monotonic() > deadline:
            raise problem
        await asyncio.sleep(0.5)


async def check_after_sweep(
    fault_harness: FaultHarness, build_id: uuid.UUID, expected: Deliverable | None = None, past: Past | None = None
) -> None:
    """Check a build. What killed attempts have left in the store may wait for the reaper: a build that has ended does
    not repeat a sweep that the store refused."""
    try:
        await check_build(fault_harness, build_id, expected, past)
    except Damage as damage:
        if not all(LEFT_OBJECT in each for each in damage.findings):
            raise
        await until_swept(fault_harness, build_id, expected, past)


# ---- waiting for the right moment


async def start_held(fault_harness: FaultHarness, harness: WorkerHarness, point: CrashPoint) -> uuid.UUID:
    """Start a build that is held when it reaches the crash point."""
    script = sample_script(long=point.startswith("compact."))
    build_id = await harness.start(script=script, prepare=_to_hold(fault_harness, point))
    await fault_harness.say(harness, build_id, f"Before {point}.")
    await fault_harness.say(harness, build_id, f"Again before {point}.")
    return build_id


def _to_hold(fault_harness: FaultHarness, point: CrashPoint) -> Callable[[uuid.UUID], None]:
    """Return a callback that holds a build at the point, for use before the build starts: it may get there at once."""
    return lambda build_id: fault_harness.ask(point, build_id, "hold")


async def claims_of(harness: WorkerHarness, build_id: uuid.UUID) -> set[uuid.UUID]:
    """The tokens of the attempts that hold the build's rows."""
    async with harness.session() as tx:
        tokens = [
            *(await tx.session.scalars(select(Turn.claim).where(Turn.build_id == build_id))),
            *(await tx.session.scalars(select(ToolCall.claim).where(ToolCall.build_id == build_id))),
            *(await tx.session.scalars(select(Snapshot.claim).where(Snapshot.build_id == build_id))),
        ]
    return {claim for claim in tokens if claim is not None}


async def until_claims_change(harness: WorkerHarness, build_id: uuid.UUID, before: set[uuid.UUID]) -> None:
    """Wait until another attempt has taken one of the build's rows."""

    async def have_changed() -> bool:
        return await claims_of(harness, build_id) != before

    await wait_until(have_changed, look_seconds=0.1)


# ---- the narrowest fault against which each safeguard protects


async def stale_snapshot(report: Report, without: str) -> None:
    """A worker hangs after it has uploaded a snapshot, and continues after another worker has taken the same one.

    A server may have closed the stale worker's connection, so that it can't write; then try again.
    """
    for _ in range(3):
        if await _stale_worker_wrote(report, without):
            return


async def _stale_worker_wrote(report: Report, without: str) -> bool:
    fault_harness, harness = report.fault_harness, report.fault_harness.harness()
    front = await fault_harness.front()
    stale = await fault_harness.worker(harness, front, without=without)
    build_id = await start_held(fault_harness, harness, "snapshot.uploaded")
    wrote = False

    async def until_attempted() -> None:
        nonlocal wrote
        await wait_until((fault_harness.directory / SNAPSHOT_ATTEMPTED.format(pid=stale.pid)).exists)
        query = select(Snapshot.id).where(Snapshot.build_id == build_id, Snapshot.state == "stored")
        async with transaction(harness.sessions) as tx:
            wrote = (await tx.session.scalars(query)).first() is not None

    at: dict[CrashPoint, uuid.UUID] = {"snapshot.uploaded": build_id}
    fresh = await take_over(fault_harness, harness, stale, front, at, until_acted=until_attempted, without=without)
    fault_harness.release("snapshot.uploaded", build_id)
    if wrote:
        await report.ready(without, harness, build_id)
    await side_by_side(stale.end(), fresh.end())
    return wrote


async def killed_in_bash(report: Report, without: str, *, sandbox_too: bool = False) -> None:
    """A worker is killed while a command runs, and another takes over."""
    fault_harness, harness = report.fault_harness, report.fault_harness.harness()
    worker = await fault_harness.worker(harness, without=without)
    build_id = await harness.start(script=sample_script(hold=True))
    await until_command_held(fault_harness, harness, build_id)
    await worker.end(signal.SIGKILL)
    if sandbox_too:
        await fault_harness.sandboxes.kill((await harness.row(build_id)).sandbox_id or "-")
    successor = await fault_harness.worker(harness, without=without)
    releasing = asyncio.create_task(keep_releasing(fault_harness, harness, build_id))
    await report.ready(without, harness, build_id)
    releasing.cancel()
    await successor.end()


async def killed_with_its_sandbox(report: Report, without: str) -> None:
    """A worker and its sandbox are killed while a command runs."""
    await killed_in_bash(report, without, sandbox_too=True)
