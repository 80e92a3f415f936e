"""The paths of builds that wait for a dependency."""

import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from temporalio.testing import TimeSkipper

from clients.sandbox import Sandboxes, sandbox_config
from db.models import Build, DependencyState, GateRun
from db.transaction import transaction
from domain.names import FINISH, preview_workflow_id
from domain.outage import PREVIEW_WAITS
from domain.status import Dependency, Status
from tests.harness.away import Away, away_harness
from tests.harness.scripts import PRODUCT, SMALL, bash, hold, steps
from tests.harness.wait import wait_until
from tests.harness.worker import WorkerHarness
from tests.workflows.scenarios import (
    EndedWorkflow,
    Scenario,
    end_preview,
    ready_build,
    refuse_rows,
    release_command,
    until_preview,
    until_row,
)

OUTAGE_SCENARIOS: list[Scenario] = []


def _scenario(
    path: str, **settings: Any
) -> Callable[[Callable[[Away], Awaitable[list[EndedWorkflow]]]], Callable[[Away], Awaitable[list[EndedWorkflow]]]]:
    def add(
        drive: Callable[[Away], Awaitable[list[EndedWorkflow]]],
    ) -> Callable[[Away], Awaitable[list[EndedWorkflow]]]:
        async def drive_behind_proxies(harness: WorkerHarness) -> list[EndedWorkflow]:
            async with away_harness(harness) as away:
                return await drive(away)

        # In a shared one, a worker that reaches everything would say that nothing is away.
        OUTAGE_SCENARIOS.append(Scenario(drive.__name__, path, drive_behind_proxies, settings, own_database=True))
        return drive

    return add


async def _until_waiting(away: Away, build_id: uuid.UUID, dependency: Dependency, after: int = 0) -> Build:
    """Wait until the build waits for the dependency, in a status later than the sequence number `after`."""
    row = await until_row(away.harness, build_id, lambda row: row.status == Status.WAITING and row.status_seq > after)
    assert row.dependency == dependency
    return row


async def recover(away: Away, build_id: uuid.UUID) -> str:
    """Run the prober until the build has gone on, and return the id of its last run."""

    async def has_gone_on() -> str | None:
        async with transaction(away.harness.sessions) as tx:  # without the time between probes
            due = update(DependencyState).values(next_probe_at=datetime.now(UTC))
            await tx.session.execute(due.where(DependencyState.state == "down"))
        run = await away.probe()
        return run if (await away.harness.row(build_id)).status != Status.WAITING else None

    return await wait_until(has_gone_on, look_seconds=0.5)


async def _skip(away: Away, build_id: uuid.UUID, time: timedelta) -> None:
    await away.harness.until_idle(build_id)  # the status is written before the workflow starts to wait
    await TimeSkipper(away.harness.client).fast_forward(away.harness.handle(build_id), time)


async def _assert_no_one_was_asked(away: Away, build_id: uuid.UUID) -> None:
    assert Status.NEEDS_INPUT not in await away.harness.statuses(build_id)


async def _sandbox_states(away: Away, build_id: uuid.UUID) -> list[str]:
    sandboxes = Sandboxes(sandbox_config(away.harness.settings))
    states = [each.state for each in await sandboxes.list_all() if each.build_id == str(build_id)]
    await sandboxes.close()
    return states


@_scenario("the model is away for an hour, the sandbox is paused, and the build goes on by itself")
async def model_away(away: Away) -> list[EndedWorkflow]:
    away.take(Dependency.MODEL)
    build_id = await away.harness.start(script=SMALL)
    row = await _until_waiting(away, build_id, Dependency.MODEL)
    assert "by itself" in (row.reason or "")
    await _skip(away, build_id, timedelta(hours=1))

    async def is_paused() -> bool:
        return await _sandbox_states(away, build_id) == ["paused"]

    await wait_until(is_paused, look_seconds=0.5)
    away.give_back(Dependency.MODEL)
    prober = await recover(away, build_id)
    workflows = await ready_build(away.harness, build_id)
    await _assert_no_one_was_asked(away, build_id)
    [resumed] = await away.harness.events(build_id, "resumed")
    assert (resumed.data["reason"], resumed.data["changes"]) == ("a long wait is over", [])
    return [*workflows, EndedWorkflow(prober, "done")]


@_scenario("the store is away at the gate, the sandbox is paused and resumed, and the build goes on by itself")
async def store_away(away: Away) -> list[EndedWorkflow]:
    build_id = await away.harness.start(script=steps([hold(PRODUCT)]))
    await away.harness.until_event(build_id, "tool_started")
    away.take(Dependency.STORE)
    await release_command(away.harness, build_id)
    await _until_waiting(away, build_id, Dependency.STORE)
    await _skip(away, build_id, timedelta(minutes=40))

    async def is_paused() -> bool:
        return await _sandbox_states(away, build_id) == ["paused"]

    await wait_until(is_paused, look_seconds=0.5)
    away.give_back(Dependency.STORE)
    await recover(away, build_id)
    workflows = await ready_build(away.harness, build_id)
    await _assert_no_one_was_asked(away, build_id)
    return workflows


@_scenario("the sandbox service is away during a call, and the same sandbox goes on")
async def sandbox_away(away: Away) -> list[EndedWorkflow]:
    build_id = await away.harness.start(script=steps([hold("echo once >> /tmp/effects")], [bash(PRODUCT)]))
    await away.harness.until_event(build_id, "tool_started")
    sandbox_id = (await away.harness.row(build_id)).sandbox_id
    away.take(Dependency.SANDBOX)
    row = await _until_waiting(away, build_id, Dependency.SANDBOX)
    away.give_back(Dependency.SANDBOX)
    await recover(away, build_id)
    assert (await away.harness.row(build_id)).sandbox_id == sandbox_id
    await release_command(away.harness, build_id)
    workflows = await ready_build(away.harness, build_id)
    await _assert_no_one_was_asked(away, build_id)
    assert row.dependency == Dependency.SANDBOX
    return workflows


@_scenario("woken by an operator while the sandbox service is away: it waits for that, and goes on by itself")
async def woken_while_away(away: Away) -> list[EndedWorkflow]:
    stopped = {"kind": "authentication", "after": 1, "times": 1}
    build_id = await away.harness.start(script=steps([bash("echo one")], [bash(PRODUCT)]), faults=[stopped])
    asked = await away.harness.until(build_id, frozenset({Status.NEEDS_INPUT}))
    away.take(Dependency.SANDBOX)
    await away.harness.builds.wake(build_id)
    await _until_waiting(away, build_id, Dependency.SANDBOX, asked.status_seq)
    away.give_back(Dependency.SANDBOX)
    await recover(away, build_id)
    workflows = await ready_build(away.harness, build_id)
    statuses = await away.harness.statuses(build_id)
    assert statuses[statuses.index("waiting") :] == ["waiting", "scaffold", "code", "checks", "ready"]
    return workflows


@_scenario(
    "the store refuses the snapshot at the gate; the build waits on in a new run, and its sandbox is lost: the "
    "agent looks first what that has cost",
    continue_as_new_turns=1,
)
async def lost_at_gate_as_new(away: Away) -> list[EndedWorkflow]:
    harness = away.harness
    build_id = await harness.start(script=steps([hold(PRODUCT)], [{"text": "Done."}], [bash(PRODUCT)]))
    await harness.until_event(build_id, "tool_started")
    away.proxies[Dependency.STORE].refuse(403)
    await release_command(harness, build_id)
    asked = await harness.until(build_id, frozenset({Status.NEEDS_INPUT}))
    assert (asked.waiting_for, asked.sandbox_id is None) == ("store", False)
    run_id = (await harness.handle(build_id).describe()).run_id

    async def waits_in_new_run() -> bool:
        return (await harness.handle(build_id).describe()).run_id != run_id

    await harness.builds.wake(build_id)
    await wait_until(waits_in_new_run)
    sandboxes = Sandboxes(sandbox_config(harness.settings))
    await sandboxes.kill(str(asked.sandbox_id))
    await sandboxes.close()
    away.give_back(Dependency.STORE)
    await harness.builds.wake(build_id)
    workflows = await ready_build(harness, build_id)
    async with harness.session() as tx:
        checks = await tx.session.scalar(select(func.count()).where(GateRun.build_id == build_id))
    assert checks == 1, "what is left of the product was not checked before the agent had seen it"
    return workflows


@_scenario("the store is away while a preview opens: it waits, opens when the store is back, and is closed")
async def preview_away(away: Away) -> list[EndedWorkflow]:
    build_id = await away.harness.start(script=SMALL)
    workflows = await ready_build(away.harness, build_id)
    away.take(Dependency.STORE)
    await away.harness.builds.open_preview(build_id, 3600, seq=100)
    await until_preview(away.harness, build_id, "opening", PREVIEW_WAITS)
    away.give_back(Dependency.STORE)
    preview = away.harness.client.get_workflow_handle(preview_workflow_id(build_id))
    await TimeSkipper(away.harness.client).fast_forward(preview, timedelta(minutes=1))
    await until_preview(away.harness, build_id, "open")
    return [workflows[0], await end_preview(away.harness, build_id, "cancelled")]


@_scenario("a long wait for the model continues as new, in the middle of a turn", continue_as_new_turns=3)
async def waited_as_new(away: Away) -> list[EndedWorkflow]:
    build_id = await away.harness.start(script=steps([bash("echo one")], [bash(PRODUCT)]))
    await away.harness.until_event(build_id, "tool_done")
    away.take(Dependency.MODEL)
    await _until_waiting(away, build_id, Dependency.MODEL)
    first = (await away.harness.handle(build_id).describe()).run_id

    async def has_continued() -> bool:
        await _skip(away, build_id, timedelta(minutes=10))
        return (await away.harness.handle(build_id).describe()).run_id != first

    await wait_until(has_continued, look_seconds=0.2)
    away.give_back(Dependency.MODEL)
    await recover(away, build_id)
    workflows = await ready_build(away.harness, build_id)
    await _assert_no_one_was_asked(away, build_id)
    return workflows


@_scenario("cancelled while it waits for the store: its last work is stored when the store is back")
async def cancelled_while_away(away: Away) -> list[EndedWorkflow]:
    build_id = await away.harness.start(script=steps([hold(PRODUCT)]))
    await away.harness.until_event(build_id, "tool_started")
    away.take(Dependency.STORE)
    await release_command(away.harness, build_id)
    row = await _until_waiting(away, build_id, Dependency.STORE)
    await away.harness.builds.cancel(build_id)
    row = await _until_waiting(away, build_id, Dependency.STORE, row.status_seq)
    assert "has ended" in (row.reason or "")
    away.give_back(Dependency.STORE)
    await recover(away, build_id)
    row = await away.harness.finished(build_id)
    assert row.status == Status.CANCELLED
    stored = [event.data["reason"] for event in await away.harness.events(build_id, "snapshot_stored")]
    assert stored == ["end"]
    return [EndedWorkflow(away.harness.handle(build_id).id, "cancelled")]


@_scenario("cancelled while the store is away for two days: it ends after a day")
async def cancelled_without_store(away: Away) -> list[EndedWorkflow]:
    build_id = await away.harness.start(script=steps([hold(PRODUCT)]))
    await away.harness.until_event(build_id, "tool_started")
    away.take(Dependency.STORE)
    await away.harness.builds.cancel(build_id)
    await _until_waiting(away, build_id, Dependency.STORE)

    async def has_ended() -> bool:
        await _skip(away, build_id, timedelta(hours=6))
        return (await away.harness.row(build_id)).closed_at is not None

    await wait_until(has_ended, look_seconds=0.2)
    assert (await away.harness.finished(build_id)).status == Status.CANCELLED
    assert not await _sandbox_states(away, build_id)
    return [EndedWorkflow(away.harness.handle(build_id).id, "cancelled")]


@_scenario("finished while it waits for the model: the product is checked as it is")
async def finished_while_away(away: Away) -> list[EndedWorkflow]:
    build_id = await away.harness.start(script=steps([bash(PRODUCT)], [bash("echo more")]))
    await away.harness.until_event(build_id, "phase_completed")
    away.take(Dependency.MODEL)
    await _until_waiting(away, build_id, Dependency.MODEL)
    await away.harness.handle(build_id).signal(FINISH)
    workflows = await ready_build(away.harness, build_id)
    await _assert_no_one_was_asked(away, build_id)
    return workflows


@_scenario("the store is away during a screenshot, and the sandbox is paused; cancelled then, its work is stored")
async def cancelled_with_work(away: Away) -> list[EndedWorkflow]:
    serve = "python3 server.py >/dev/null 2>&1 &"
    screenshot = {"tool": "take_screenshot", "input": {"path": "/"}}
    build_id = await away.harness.start(script=steps([bash(PRODUCT)], [hold("echo new >new; " + serve)], [screenshot]))
    await away.harness.until_event(build_id, "tool_started", turn=2)
    away.take(Dependency.STORE)
    await release_command(away.harness, build_id)
    await _until_waiting(away, build_id, Dependency.STORE)
    await _skip(away, build_id, timedelta(minutes=40))

    async def is_paused() -> bool:
        return await _sandbox_states(away, build_id) == ["paused"]

    await wait_until(is_paused, look_seconds=0.5)
    away.give_back(Dependency.STORE)
    await away.harness.builds.cancel(build_id)
    assert (await away.harness.finished(build_id)).status == Status.CANCELLED
    stored = [event.data["reason"] for event in await away.harness.events(build_id, "snapshot_stored")]
    assert stored == ["phase", "end"], "what the agent did after its commit is kept"
    return [EndedWorkflow(away.harness.handle(build_id).id, "cancelled")]


@_scenario("cancelled while the database refuses its last snapshot for a while: it is taken once more")
async def cancelled_without_database(away: Away) -> list[EndedWorkflow]:
    harness = away.harness
    project_id = await harness.project(user_id := await harness.founder())
    build_id = await harness.start(user_id, project_id=project_id, script=steps([hold("echo new >new")]))
    await harness.until_event(build_id, "tool_started")
    async with refuse_rows(harness, "snapshots", project_id, "new.reason = 'end'", "no space", code="53100"):
        await harness.builds.cancel(build_id)
        await harness.until_event(build_id, "snapshot_failed")
    assert (await harness.finished(build_id)).status == Status.CANCELLED
    stored = [event.data["reason"] for event in await harness.events(build_id, "snapshot_stored")]
    assert stored == ["end"]
    return [EndedWorkflow(harness.handle(build_id).id, "cancelled")]
