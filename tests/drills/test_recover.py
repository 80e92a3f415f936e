"""`cofounder recover`: Temporal's namespace is lost, or the database is put back, while builds run."""

import asyncio
import itertools
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import select

from clients.browser import Browser
from clients.sandbox import Role, Sandboxes, sandbox_config
from db.models import Build, LedgerEntry, Preview
from db.transaction import transaction
from db.users import UserChange, change_user
from domain.errors import NotFound
from domain.names import preview_workflow_id
from domain.status import Status
from local.stack import LocalStack
from tests.harness.api_server import new_database
from tests.harness.backup import dump_database, restore_database
from tests.harness.namespaces import new_namespace
from tests.harness.phases import count_phases
from tests.harness.recover import run_recover
from tests.harness.repeats import assert_nothing_was_repeated
from tests.harness.scripts import HOLD, PRODUCT, SMALL, bash, hold, steps
from tests.harness.wait import wait_until
from tests.harness.worker import FOUR_TURNS_A_DAY, WorkerHarness, poor_founder, worker_harness
from tests.workflows.scenarios import release_command, releasing_checks, until_waiting

Figure = Callable[[str], None]

_QUEUE = "recovery-drill"

_LOST_SECONDS = 600
"""The database is put back by so much."""

_ROUNDS = 5
"""Builds in each phase; there are seven phases."""


async def recover(
    stack: LocalStack, database_url: str, namespace: str, *options: str
) -> tuple[int, dict[str, Any], str]:
    """Run `cofounder recover`. Return its exit code, its result, and what it has printed for people."""
    environment = {
        **stack.environment,
        "DATABASE_URL": database_url,
        "TEMPORAL_NAMESPACE": namespace,
        "TEMPORAL_TASK_QUEUE": _QUEUE,
        "PATH": "/usr/bin:/bin",
    }
    return await run_recover(environment, *options)


async def _asleep(harness: WorkerHarness) -> uuid.UUID:
    user_id, _ = await poor_founder(harness, FOUR_TURNS_A_DAY)
    script = steps([bash("echo one")], [bash("echo two")], [bash("echo three")], [bash(PRODUCT)])
    build_id = await harness.start(user_id, script=script)
    await harness.until(build_id, frozenset({Status.SLEEPING}))
    return build_id


async def _asking(harness: WorkerHarness) -> uuid.UUID:
    build_id = await harness.start(script=steps(*([bash("false")] for _ in range(3)), [bash(PRODUCT)]))
    await until_waiting(harness, build_id, "founder")
    return build_id


async def _in_command(harness: WorkerHarness, user_id: str | None = None) -> uuid.UUID:
    script = steps([bash("echo one")], [hold()], [bash(PRODUCT)])
    build_id = await harness.start(user_id, script=script)
    await harness.until_event(build_id, "tool_started", turn=2)
    return build_id


async def _in_gate(harness: WorkerHarness) -> uuid.UUID:
    product = PRODUCT.replace('"check": "python3', f'"check": "{HOLD}; python3')
    build_id = await harness.start(script=steps([bash(product)]))
    await harness.until_event(build_id, "gate_step", count=3)
    return build_id


async def _ready(harness: WorkerHarness) -> uuid.UUID:
    build_id = await harness.start(script=SMALL)
    row = await harness.finished(build_id)
    assert row.status == Status.READY, row.reason

    async def is_open() -> bool:
        async with harness.session() as tx:
            preview = await tx.session.get(Preview, build_id)
            return preview is not None and preview.state == "open"

    await wait_until(is_open)
    return build_id


async def _in_model_call(harness: WorkerHarness) -> uuid.UUID:
    """A build whose answer comes when its worker has been told to stop: the call ends, and its answer is stored."""
    build_id = await harness.start(script=SMALL, faults=[{"kind": "stall", "seconds": 20}])
    await harness.until_event(build_id, "turn_started")
    return build_id


async def _finish_all(harness: WorkerHarness, builds: dict[str, list[uuid.UUID]]) -> None:
    """Do for each build what it waits for, and wait until it is ready."""
    for build_id in builds["in a command"]:
        await release_command(harness, build_id)
    for build_id in builds["asleep"]:
        async with transaction(harness.sessions) as tx:
            user_id = (await tx.session.get_one(Build, build_id)).user_id
            await change_user(tx, user_id, UserChange(plan="cto_scale"), datetime.now(UTC).date())
    for build_id in (*builds["asleep"], *builds["asking"]):
        await harness.until(build_id, frozenset({Status.SLEEPING, Status.NEEDS_INPUT}))
        await harness.until_idle(build_id)
        with suppress(NotFound):  # its plan is larger now, so it may have gone on by itself
            await harness.builds.wake(build_id)
    async with releasing_checks(harness, builds["in the gate"]):
        for phase, build_ids in builds.items():
            for build_id in build_ids if phase != "ready" else ():  # that one has no workflow here
                row = await harness.finished(build_id)
                assert row.status == Status.READY, row.reason


async def _start_in_every_phase(harness: WorkerHarness) -> dict[str, uuid.UUID]:
    user_id = await harness.founder(await harness.plan(None, concurrent_builds=1))
    first = await _in_command(harness, user_id)
    queued = await harness.start(user_id, script=SMALL)
    await harness.until(queued, frozenset({Status.QUEUED}))
    others = _asleep(harness), _asking(harness), _in_gate(harness), _ready(harness)
    asleep, asking, at_gate, ready = await asyncio.gather(*others)
    phases = {"in a command": first, "queued": queued, "asleep": asleep, "asking": asking}
    return {**phases, "in the gate": at_gate, "ready": ready}


@pytest.mark.timeout(2400)
async def test_namespace_lost(large_stack: LocalStack, browser: Browser, figure: Figure) -> None:
    """D1, D4: lose Temporal's namespace with 35 builds in every phase, and recover in an empty one."""
    database_url = await new_database(large_stack)
    before, after = await new_namespace(large_stack), await new_namespace(large_stack)
    own: dict[str, Any] = {"database_url": database_url, "temporal_task_queue": _QUEUE}
    builds: dict[str, list[uuid.UUID]] = {}
    # Its worker lets model calls end, as in production.
    async with worker_harness(large_stack, browser, namespace=before, graceful_shutdown_seconds=120, **own) as harness:
        for started in await asyncio.gather(*(_start_in_every_phase(harness) for _ in range(_ROUNDS))):
            for phase, build_id in started.items():
                builds.setdefault(phase, []).append(build_id)
        builds["in a model call"] = await asyncio.gather(*(_in_model_call(harness) for _ in range(_ROUNDS)))
        phases = await count_phases(harness, itertools.chain(*builds.values()))

    code, _, refusal = await recover(large_stack, database_url, after, "--temporal")
    assert (code, "Nothing was changed" in refusal) == (1, True), refusal
    code, planned, _ = await recover(large_stack, database_url, after, "--temporal", "--dry-run")
    assert (code, planned["steps"]) == (0, {"start": 6 * _ROUNDS, "open_preview": _ROUNDS})
    begun = asyncio.get_running_loop().time()
    code, done, problems = await recover(large_stack, database_url, after, "--temporal", "--yes")
    assert (code, done["failed"]) == (0, 0), problems
    seconds = asyncio.get_running_loop().time() - begun
    await asyncio.sleep(1)  # workflows become visible a moment later
    code, again, problems = await recover(large_stack, database_url, after, "--temporal")
    assert (code, again["steps"]) == (0, {}), problems

    async with worker_harness(large_stack, browser, namespace=after, **own) as harness:
        await _finish_all(harness, builds)
        for build_id in (each for build_ids in builds.values() for each in build_ids):
            await assert_nothing_was_repeated(harness, build_id)
        for build_id in builds["ready"]:
            assert (await harness.row(build_id)).build_version == 1
            await harness.client.get_workflow_handle(preview_workflow_id(build_id)).cancel()
        for build_id in builds["asleep"]:
            kinds = [event.data["status"] for event in await harness.events(build_id, "status")]
            assert kinds.count("sleeping") == 1, "its feed says once that it sleeps"
    figure(f"lost with {phases}; all ready, none charged twice; recovered in {seconds:.0f} s")


@pytest.mark.timeout(3600)
async def test_database_put_back(stack: LocalStack, browser: Browser, figure: Figure, tmp_path: Path) -> None:
    """D3: put the database back while builds run, by the recipe of docs/backup.md, and recover."""
    database_url, namespace = await new_database(stack), await new_namespace(stack)
    own: dict[str, Any] = {"database_url": database_url, "temporal_task_queue": _QUEUE, "gate_command_seconds": 1200}
    backup = tmp_path / "backup"
    async with worker_harness(stack, browser, namespace=namespace, **own) as harness:
        ready = await _ready(harness)
        script = steps([hold()], [bash("echo one")], [bash("echo two >two")], [hold()], [bash(PRODUCT)])
        owner = await harness.founder(await harness.plan(None, concurrent_builds=1))
        working = await harness.start(owner, script=script)
        becomes_ready = await harness.start(script=steps([hold()], [bash(PRODUCT)]))
        asleep, asking, at_gate = await _asleep(harness), await _asking(harness), await _in_gate(harness)
        for build_id in (working, becomes_ready):
            await harness.until_event(build_id, "tool_started")
        queued = await harness.start(owner, script=SMALL)
        await harness.until(queued, frozenset({Status.QUEUED}))
        phases = await count_phases(harness, (ready, working, becomes_ready, asleep, asking, at_gate, queued))
        await dump_database(database_url, backup)
        began = monotonic()
        new, orphan = await _ready(harness), await _in_command(harness)
        await asyncio.sleep(began + _LOST_SECONDS / 2 - monotonic())  # a command is given ten minutes
        for build_id in (working, becomes_ready):
            await release_command(harness, build_id)
        await harness.until_event(working, "tool_started", turn=4)
        assert (await harness.finished(becomes_ready)).status == Status.READY
        await asyncio.sleep(began + _LOST_SECONDS - monotonic())
        lost = monotonic() - began
        last_seen = {build_id: (await harness.events(build_id))[-1].id for build_id in (working, becomes_ready)}

    await restore_database(database_url, backup)
    code, _, refusal = await recover(stack, database_url, namespace, "--after-restore")
    assert (code, "Nothing was changed" in refusal) == (1, True), refusal
    code, done, problems = await recover(stack, database_url, namespace, "--after-restore", "--yes")
    assert (code, done["failed"]) == (0, 0), problems
    assert done["steps"] == {"project": 1, "restart": 1, "rebuild": 1, "end_orphan": 1}, problems

    async with worker_harness(stack, browser, namespace=namespace, **own) as harness:
        for build_id in (ready, becomes_ready, new):
            row = await harness.row(build_id)
            assert (row.status, row.build_version) == (Status.READY, 1), row.reason
        # The command of the lost time may still wait, as well as the one that the agent begins again.
        releasing = [asyncio.create_task(release_command(harness, working)) for _ in range(2)]
        row = await harness.finished(working)
        assert row.status == Status.READY, row.reason
        for task in releasing:
            task.cancel()
        await until_waiting(harness, asking, "founder")
        await harness.until_idle(asking)
        await harness.builds.wake(asking)
        for build_id in (at_gate, queued, asking):
            async with releasing_checks(harness, [at_gate]):
                row = await harness.finished(build_id)
            assert row.status == Status.READY, row.reason
            await assert_nothing_was_repeated(harness, build_id)
        assert (await harness.row(orphan)).status == Status.FAILED
        assert (await harness.row(asleep)).status == Status.SLEEPING
        [resumed] = await harness.events(working, "resumed")
        assert "was lost" in resumed.data["changes"][0]
        for build_id, event_id in last_seen.items():
            assert any(event.id > event_id for event in await harness.events(build_id)), "viewers miss nothing"
        estimated = await _estimated(harness, working)
        assert estimated == [2, 3, 4], "the lost turns are booked"
        sandboxes = Sandboxes(sandbox_config(harness.settings))
        assert [await sandboxes.find(str(orphan), role) for role in Role] == [[] for _ in Role]
        await sandboxes.close()
        await harness.builds.cancel(asleep)
        await harness.finished(asleep)
    figure(f"put back {lost / 60:.0f} minutes to {phases}; {len(estimated)} turns were lost and are booked")
    figure("2 builds began since")
    figure("3 ready builds kept, 4 went on and are ready, 1 sleeps on, 1 without rows ended")


async def test_put_back_during_a_model_call(
    stack: LocalStack, browser: Browser, figure: Figure, tmp_path: Path
) -> None:
    """Put the database back to before a model call that was not answered when the workers stopped, and recover."""
    database_url, namespace = await new_database(stack), await new_namespace(stack)
    own: dict[str, Any] = {"database_url": database_url, "temporal_task_queue": _QUEUE}
    async with worker_harness(stack, browser, namespace=namespace, **own, graceful_shutdown_seconds=1) as harness:
        stall = {"kind": "stall", "after": 1, "seconds": 300}
        build_id = await harness.start(script=steps([hold()], [bash(PRODUCT)]), faults=[stall])
        idle = await harness.start(script=steps([hold()], [bash(PRODUCT)]))
        for each in (build_id, idle):
            await harness.until_event(each, "tool_started")
        await dump_database(database_url, tmp_path / "backup")
        await release_command(harness, build_id)
        await harness.until_event(build_id, "turn_started", turn=2)
        last_seen = (await harness.events(build_id))[-1].id

    await restore_database(database_url, tmp_path / "backup")
    code, done, problems = await recover(stack, database_url, namespace, "--after-restore", "--yes")
    assert (code, done["failed"], done["steps"]) == (0, 0, {"restart": 1}), problems

    async with worker_harness(stack, browser, namespace=namespace, **own) as harness:
        # The command of the lost time has ended. The other build knows nothing of a restore.
        await release_command(harness, idle)
        for each in (build_id, idle):
            row = await harness.finished(each)
            assert row.status == Status.READY, row.reason
        estimated = await _estimated(harness, build_id)
        assert estimated == [2], "the call that was lost is booked"
        assert await _estimated(harness, idle) == []
        for each in (build_id, idle):
            assert (await harness.events(each))[-1].id > last_seen + 1000, "viewers miss nothing"
    figure(f"2 builds ready, {len(estimated)} lost call booked")


async def _estimated(harness: WorkerHarness, build_id: uuid.UUID) -> list[int]:
    async with harness.session() as tx:
        entries = (await tx.session.scalars(select(LedgerEntry).where(LedgerEntry.build_id == build_id))).all()
    return sorted(entry.turn for entry in entries if entry.state == "estimated")
