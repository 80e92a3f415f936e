"""Each fault alone. A group has a task queue and workers of its own, so that what it does to them strikes no other's.

Cases that need the same blow get it together: one SIGKILL finds eleven builds, each held at another place.
"""

import asyncio
import signal
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import get_args

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from temporalio.service import RPCError

from activities.runtime.crash_point import CrashPoint
from db.models import LedgerEntry, Snapshot, ToolCall, Turn
from domain.names import BUILD_WORKFLOW
from domain.status import Status
from local.rehearsal.control import FaultKind
from local.stack import PARTS, PartName
from tests.faults.disabled_safeguards import NEWER, TAKEN
from tests.faults.invariants import Damage, check_build, requests_of
from tests.faults.proxy import FaultProxy
from tests.faults.report import Report, closed, side_by_side
from tests.faults.sample_build import sample_script
from tests.harness.faults import FaultHarness, Front, WorkerProcess, copy_tree, put_back
from tests.harness.worker import WorkerHarness
from tests.wait import DEADLINE, wait_until
from tests.workflows.scenarios import HELD

LONG = "600"
"""Seconds: a stalled stream is not noticed."""

DELAYS, ANSWERS_LOST, CUTS = 3, 3, 3
"""So many of each strike a build's connections to a server."""

_BUILDS_TO_STRIKE = 6
"""Start this many builds one after the other, if a server's connections have not been struck in every way before."""

POINTS: tuple[CrashPoint, ...] = get_args(CrashPoint)

STALE: tuple[CrashPoint, ...] = ("think.after_call", "dispatch.acted", "snapshot.uploaded")
"""Where an attempt is held that has done everything but write so."""


async def each_fault_alone(report: Report) -> None:
    """All cases but those in which a server dies; what became of them is in the report."""
    fault_harness = report.fault_harness
    harness = fault_harness.harness()
    worker = await fault_harness.worker(harness)
    groups = (killed, stopped, model, store, connections, newer, reverted, terminated)
    await side_by_side(report.reference(harness), *(group(report) for group in groups))
    await worker.end()


async def each_server_killed(report: Report) -> None:
    """A server that dies strikes all that run on it: one case after the other."""
    fault_harness = report.fault_harness
    harness = fault_harness.harness()
    worker = await fault_harness.worker(harness)
    await report.reference(harness)
    await worker.end()
    for part in ("postgres", "temporal", "sandbox"):
        await server_killed(report, part)


# ---- the worker


async def killed(report: Report) -> None:
    """SIGKILL, at every crash point, in a model call and in a command."""
    fault_harness, harness = report.fault_harness, report.fault_harness.harness()
    worker = await fault_harness.worker(harness, STREAM_IDLE_SECONDS=LONG)
    at = {point: await start_held(fault_harness, harness, point) for point in POINTS}
    calling = await harness.start(script=sample_script(), faults=[{"kind": "stall", "seconds": 300, "after": 1}])
    running = await harness.start(script=sample_script(held=True))
    await until_calling(fault_harness, harness, calling, turn=2)
    held = await until_command_held(fault_harness, harness, running)
    await until_held(fault_harness, at)
    await worker.end(signal.SIGKILL)
    held.unlink()
    successor = await fault_harness.worker(harness)
    await side_by_side(
        *(report.ready(f"SIGKILL at {point}", harness, build_id) for point, build_id in at.items()),
        report.ready("SIGKILL in the model call", harness, calling),
        report.ready("SIGKILL in bash", harness, running),
    )
    await successor.end()


async def stopped(report: Report) -> None:
    """SIGSTOP past the heartbeat, then SIGCONT: by then another worker has taken everything over."""
    fault_harness, harness = report.fault_harness, report.fault_harness.harness()
    front = await fault_harness.front()
    stale = await fault_harness.worker(harness, front)
    at = {point: await start_held(fault_harness, harness, point) for point in STALE}
    running = await harness.start(script=sample_script(held=True))
    held = await until_command_held(fault_harness, harness, running)
    before = await claims(harness, running)
    fresh = await taken_over(fault_harness, harness, stale, front, at, lambda: changed(harness, running, before))
    held.unlink()
    for point, build_id in at.items():
        fault_harness.let_go(point, build_id)
    await side_by_side(
        *(report.ready(f"SIGSTOP and SIGCONT at {point}", harness, build_id) for point, build_id in at.items()),
        report.ready("SIGSTOP and SIGCONT in bash", harness, running),
    )
    await side_by_side(stale.end(), fresh.end())


async def taken_over(
    fault_harness: FaultHarness,
    harness: WorkerHarness,
    stale: WorkerProcess,
    front: Front,
    at: Mapping[CrashPoint, uuid.UUID],
    and_besides: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0),
    *,
    acted: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(3),
    without: str = "",
) -> WorkerProcess:
    """Stop a worker while builds are held at points, until another is held there, and let it go on; returns the other.

    Temporal can't tell the first one at once that its attempts are over: they do what they have come to do.
    `and_besides` waits for what else has to be taken over, `acted` until they have written, or found that they may not.
    """
    await until_held(fault_harness, at)
    stale.send(signal.SIGSTOP)
    front["temporal"].cut()  # its polls end with it: an answered one would take an attempt that no worker makes
    for point, build_id in at.items():
        fault_harness.let_go(point, build_id)  # once it can
        fault_harness.ask(point, build_id, "hold")
    fresh = await fault_harness.worker(harness, without=without)
    await until_held(fault_harness, at)
    await and_besides()
    front["temporal"].blackhole()
    stale.send(signal.SIGCONT)
    await acted()
    front["temporal"].heal()
    return fresh


async def until_held(fault_harness: FaultHarness, at: Mapping[CrashPoint, uuid.UUID]) -> None:
    """Wait until each of these builds is held at its point."""
    await wait_until(lambda: all(fault_harness.has_reached(point, build_id) for point, build_id in at.items()))


async def newer(report: Report) -> None:
    """A worker of the next version joins in the middle of a call, and the older one leaves."""
    fault_harness, harness = report.fault_harness, report.fault_harness.harness()
    old = await fault_harness.worker(harness)
    build_id = await harness.start(script=sample_script(held=True))
    held = await until_command_held(fault_harness, harness, build_id)
    new = await fault_harness.worker(harness, without=NEWER)
    await old.end()
    held.unlink()
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


async def model(report: Report) -> None:
    """Everything that the model can answer instead of an answer; beside workflows that can't get anywhere."""
    fault_harness, harness = report.fault_harness, report.fault_harness.harness()
    worker = await fault_harness.worker(harness, STREAM_IDLE_SECONDS="3")
    poison = [
        await harness.client.start_workflow(
            BUILD_WORKFLOW, given, id=f"build-{uuid.uuid4()}", task_queue=harness.settings.temporal_task_queue
        )
        for given in ({"build_id": str(uuid.uuid4())}, {"build_id": "no id"}, ["no build"])
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


async def store(report: Report) -> None:
    """S3 answers 5xx, slowly, or 403."""
    fault_harness, harness = report.fault_harness, report.fault_harness.harness()
    front = await fault_harness.front()
    worker, s3 = await fault_harness.worker(harness, front), front["s3"]

    s3.refuse(503)
    build_id = await harness.start(script=sample_script())
    await wait_until(lambda: s3.struck["503"] >= 3)
    s3.heal()
    await report.ready("S3 answers 503", harness, build_id)

    s3.delay_seconds = 0.2
    await report.ready("S3 is slow", harness, await harness.start(script=sample_script()))
    assert s3.struck["delay"]
    s3.heal()

    s3.refuse(403)
    build_id = await harness.start(script=sample_script())
    row = await harness.until(build_id, frozenset({Status.NEEDS_INPUT}))
    s3.heal()
    async with report.case("S3's 403 is for a person"):
        assert (row.status, row.waiting_for) == (Status.NEEDS_INPUT, "store"), row.reason
    await report.ready("S3 answers 403", harness, build_id, wake=True)
    await worker.end()


async def connections(report: Report, parts: Sequence[PartName] = PARTS) -> None:
    """Connections are slow, answers are lost after what was asked for has been done, connections are cut, and nothing
    arrives for a while."""

    async def one(part: PartName) -> None:
        fault_harness, harness = report.fault_harness, report.fault_harness.harness()
        front = await fault_harness.front()
        worker, proxy = await fault_harness.worker(harness, front), front[part]
        striking = asyncio.create_task(_strike(proxy))
        # How much of it befalls one build depends on which of the two is faster.
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


async def _strike(proxy: FaultProxy) -> None:
    """Strike what passes by, in each way after the other."""
    proxy.delay_seconds = 0.1
    while proxy.struck["delay"] < DELAYS:
        await asyncio.sleep(0.05)
    proxy.heal()
    while proxy.struck["answer lost"] < ANSWERS_LOST:
        proxy.answers_to_lose = 1
        await asyncio.sleep(0.3)
    while proxy.struck["cut"] < CUTS:
        proxy.cut()
        await asyncio.sleep(0.3)
    proxy.blackhole()
    while not proxy.struck["blackhole"]:
        await asyncio.sleep(0.05)
    await asyncio.sleep(2)
    proxy.heal()


async def server_killed(report: Report, part: PartName) -> None:
    """A server dies under two builds, one in a command and one before it writes an answer, and comes back."""
    fault_harness, harness = report.fault_harness, report.fault_harness.harness()
    worker = await fault_harness.worker(harness)
    writing = await start_held(fault_harness, harness, "think.after_call")
    running = await harness.start(script=sample_script(held=True))
    held = await until_command_held(fault_harness, harness, running)
    await until_held(fault_harness, {"think.after_call": writing})
    fault_harness.stack.kill(
        part, signal.SIGQUIT if part == "postgres" else signal.SIGKILL
    )  # `pg_ctl stop -m immediate`
    fault_harness.let_go("think.after_call", writing)
    held.unlink()
    await asyncio.sleep(1)
    await fault_harness.stack.restart(part)
    letting_go = asyncio.create_task(never_held(fault_harness, harness, running))
    await side_by_side(
        report.ready(f"{part} is killed while an answer is to be written", harness, writing),
        report.ready(f"{part} is killed while a command runs", harness, running),
    )
    letting_go.cancel()
    await worker.end()


async def never_held(fault_harness: FaultHarness, harness: WorkerHarness, build_id: uuid.UUID) -> None:
    """Let go of the build's command whenever it waits: one that was lost is repeated by the agent, and waits again."""
    while True:
        with suppress(SQLAlchemyError, OSError):
            row = await harness.row(build_id)
            _held_in(fault_harness, row.sandbox_id).unlink(missing_ok=True)
        await asyncio.sleep(0.1)


def _held_in(fault_harness: FaultHarness, sandbox_id: str | None) -> Path:
    return fault_harness.sandbox_directory(sandbox_id or "-") / HELD.lstrip("/")


# ---- the sandbox and the workflow


async def reverted(report: Report, without: str = "") -> None:
    """A paused sandbox comes back with its files as they were earlier."""
    fault_harness, harness = report.fault_harness, report.fault_harness.harness()
    worker = await fault_harness.worker(harness, without=without)
    faults = [{"kind": "refusal", "after": 2}]
    build_id = await harness.start(
        script=sample_script(), faults=faults, prepare=_to_hold(fault_harness, "dispatch.acted")
    )
    await until_reverted(fault_harness, harness, build_id)
    await report.ready(without or "files are reverted on resume", harness, build_id, wake=True)
    if not without:
        build_id = await harness.start(script=sample_script(held=True))
        await until_command_held(fault_harness, harness, build_id)
        await fault_harness.sandboxes.kill((await harness.row(build_id)).sandbox_id or "-")
        letting_go = asyncio.create_task(never_held(fault_harness, harness, build_id))
        await report.ready("a sandbox vanishes", harness, build_id)
        letting_go.cancel()
    await worker.end()


async def until_reverted(fault_harness: FaultHarness, harness: WorkerHarness, build_id: uuid.UUID) -> None:
    """Wait until the build waits for a person, and put its files back to what they were after its first call, at which
    it is held."""
    await until_held(fault_harness, {"dispatch.acted": build_id})
    home = fault_harness.sandbox_directory((await harness.row(build_id)).sandbox_id or "-") / "home"
    earlier = fault_harness.directory / f"earlier-{build_id}"
    await copy_tree(home, earlier)
    fault_harness.let_go("dispatch.acted", build_id)
    await harness.until(build_id, frozenset({Status.NEEDS_INPUT}))
    await put_back(earlier, home)


async def terminated(report: Report) -> None:
    """An operator terminates workflows, and a worker dies of it that has just uploaded a snapshot: the rows are closed,
    and the sandboxes and what belongs to no snapshot go."""
    fault_harness, harness = report.fault_harness, report.fault_harness.harness()
    worker = await fault_harness.worker(harness)
    in_bash = await harness.start(script=sample_script(held=True))
    uploaded = await start_held(fault_harness, harness, "snapshot.uploaded")
    await until_command_held(fault_harness, harness, in_bash)
    await until_held(fault_harness, {"snapshot.uploaded": uploaded})
    for build_id in (in_bash, uploaded):
        await harness.handle(build_id).terminate("an operator's decision")
    await worker.end(signal.SIGKILL)
    successor = await fault_harness.worker(harness)
    async with report.case("a workflow is terminated"):
        for build_id in (in_bash, uploaded):
            await closed(harness, build_id)
            await until_swept(fault_harness, build_id)
    await successor.end()


async def until_swept(fault_harness: FaultHarness, build_id: uuid.UUID) -> None:
    """Wait until the reaper has tidied up after a build that was ended from outside, and check it."""
    deadline = monotonic() + DEADLINE
    while True:
        try:
            await check_build(fault_harness, build_id, None)
            left = [each.id for each in await fault_harness.sandboxes.list_all() if each.build_id == str(build_id)]
            if not left:
                return
            found = Damage([f"sandbox {left[0]} has outlived its build"])
        except Damage as damage:
            found = damage
        if monotonic() > deadline:
            raise found
        await asyncio.sleep(0.2)


# ---- waiting for the right moment


async def start_held(fault_harness: FaultHarness, harness: WorkerHarness, point: CrashPoint) -> uuid.UUID:
    """Start a build that is held when it gets to the point."""
    build_id = await harness.start(script=sample_script(), prepare=_to_hold(fault_harness, point))
    await fault_harness.say(harness, build_id, f"Before {point}.")
    await fault_harness.say(harness, build_id, f"Again before {point}.")
    return build_id


def _to_hold(fault_harness: FaultHarness, point: CrashPoint) -> Callable[[uuid.UUID], None]:
    """Holds a build at the point; for before it starts, as it may get there at once."""
    return lambda build_id: fault_harness.ask(point, build_id, "hold")


async def until_command_held(fault_harness: FaultHarness, harness: WorkerHarness, build_id: uuid.UUID) -> Path:
    """Wait until the third turn's command waits in its sandbox; returns the file that holds it there."""

    async def held() -> Path | None:
        path = _held_in(fault_harness, (await harness.row(build_id)).sandbox_id)
        return path if path.exists() else None

    return await wait_until(held)


async def until_calling(fault_harness: FaultHarness, harness: WorkerHarness, build_id: uuid.UUID, turn: int) -> None:
    """Wait until the turn's model call has reached the model."""
    goal = (await harness.row(build_id)).goal

    async def calling() -> bool:
        async with harness.session() as session:
            calls = select(func.count()).where(LedgerEntry.build_id == build_id, LedgerEntry.turn == turn)
            return bool(await session.scalar(calls)) and len(requests_of(fault_harness, goal)) >= turn

    await wait_until(calling, look_seconds=0.2)


async def claims(harness: WorkerHarness, build_id: uuid.UUID) -> set[uuid.UUID]:
    """The tokens with which attempts hold the build's rows."""
    async with harness.session() as session:
        found = [
            *(await session.scalars(select(Turn.claim).where(Turn.build_id == build_id))),
            *(await session.scalars(select(ToolCall.claim).where(ToolCall.build_id == build_id))),
            *(await session.scalars(select(Snapshot.claim).where(Snapshot.build_id == build_id))),
        ]
    return {claim for claim in found if claim is not None}


async def changed(harness: WorkerHarness, build_id: uuid.UUID, before: set[uuid.UUID]) -> None:
    """Wait until another attempt has taken one of the build's rows."""

    async def are_others() -> bool:
        return await claims(harness, build_id) != before

    await wait_until(are_others, look_seconds=0.1)


# ---- the narrowest fault that each safeguard is against


async def stale_snapshot(report: Report, without: str) -> None:
    """A worker hangs when it has uploaded a snapshot, and comes back when another has taken it, too.

    What it talked to may have given it up, so that it does not come to write; then it is tried again.
    """
    for _ in range(3):
        if await _came_back_and_wrote(report, without):
            return


async def _came_back_and_wrote(report: Report, without: str) -> bool:
    fault_harness, harness = report.fault_harness, report.fault_harness.harness()
    front = await fault_harness.front()
    stale = await fault_harness.worker(harness, front, without=without)
    build_id = await start_held(fault_harness, harness, "snapshot.uploaded")
    wrote = False

    async def written() -> None:
        nonlocal wrote
        await wait_until((fault_harness.directory / TAKEN.format(pid=stale.pid)).exists)
        query = select(Snapshot.id).where(Snapshot.build_id == build_id, Snapshot.state == "stored")
        async with harness.sessions() as session:
            wrote = (await session.scalars(query)).first() is not None

    at: dict[CrashPoint, uuid.UUID] = {"snapshot.uploaded": build_id}
    fresh = await taken_over(fault_harness, harness, stale, front, at, acted=written, without=without)
    fault_harness.let_go("snapshot.uploaded", build_id)
    if wrote:
        await report.ready(without, harness, build_id)
    await side_by_side(stale.end(), fresh.end())
    return wrote


async def killed_in_bash(report: Report, without: str, *, sandbox_too: bool = False) -> None:
    """A worker is killed while a command runs, and another takes over."""
    fault_harness, harness = report.fault_harness, report.fault_harness.harness()
    worker = await fault_harness.worker(harness, without=without)
    build_id = await harness.start(script=sample_script(held=True))
    await until_command_held(fault_harness, harness, build_id)
    await worker.end(signal.SIGKILL)
    if sandbox_too:
        await fault_harness.sandboxes.kill((await harness.row(build_id)).sandbox_id or "-")
    successor = await fault_harness.worker(harness, without=without)
    letting_go = asyncio.create_task(never_held(fault_harness, harness, build_id))
    await report.ready(without, harness, build_id)
    letting_go.cancel()
    await successor.end()


async def killed_with_its_sandbox(report: Report, without: str) -> None:
    """A worker is killed while a command runs, and so is its sandbox."""
    await killed_in_bash(report, without, sandbox_too=True)
