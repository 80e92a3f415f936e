"""The paths that a build and its preview can take, each run to its end on real servers.

`test_scenarios.py` runs them as tests, `tests/replay/record.py` stores the histories that they leave. The name of a
scenario's function is part of the names of its stored histories.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select, text
from temporalio.client import WorkflowFailureError
from temporalio.testing import TimeSkipper

from clients.browser import Browser
from clients.sandbox import RUNNER_MODULE, RUNNER_SOURCE, Role, Sandbox, Sandboxes, sandbox_config
from clients.sandbox_runner import JOURNAL
from db.models import Build, BusinessEvent, LedgerEntry, Message, Preview, Project, ToolCall
from db.transaction import transaction
from db.users import UserChange, change_user
from domain import prompt
from domain.errors import CofounderError, SandboxUnavailable
from domain.guards import SILENT
from domain.names import EXTEND, FINISH, REAPER_WORKFLOW, build_workflow_id, preview_workflow_id
from domain.status import Status
from local.stack import LocalStack
from services.build_settings import change_settings, notify_of_settings
from settings import Settings
from tests.harness.api_server import new_database
from tests.harness.history import chain_of
from tests.harness.reaper import reap, reap_until
from tests.harness.scripts import HOLD_FILE, PRODUCT, SMALL, bash, hold, steps
from tests.harness.wait import DEADLINE, wait_until
from tests.harness.worker import FOUR_TURNS_A_DAY, WorkerHarness, changed_prices, poor_founder, worker_harness


@dataclass(frozen=True)
class EndedWorkflow:
    """A workflow that a scenario has run to its end, and how it ended."""

    workflow_id: str
    status: str


Drive = Callable[[WorkerHarness], Awaitable[list[EndedWorkflow]]]
"""Runs a path to its end, and returns the workflows that it leaves."""


@dataclass(frozen=True)
class Scenario:
    """A path and the settings that its worker needs."""

    name: str
    path: str
    drive: Drive
    settings: dict[str, Any]
    own_database: bool = False
    """Whether it needs a database without other builds. One look of the reaper closes only few, for example."""


@asynccontextmanager
async def scenario_harness(
    stack: LocalStack, scenario: Scenario, browser: Browser | None = None
) -> AsyncIterator[WorkerHarness]:
    """Run a worker with the settings and the database that the scenario needs."""
    database: dict[str, Any] = {}
    if scenario.own_database:
        database["database_url"] = await new_database(stack)
    async with worker_harness(stack, browser, **scenario.settings, **database) as harness:
        yield harness


SCENARIOS: list[Scenario] = []


def _scenario(
    path: str, *, own_database: bool = False, **settings: Any
) -> Callable[[Callable[[WorkerHarness], Awaitable[list[EndedWorkflow]]]], None]:
    def add(drive: Drive) -> None:
        SCENARIOS.append(Scenario(drive.__name__, path, drive, settings, own_database))

    return add


async def release_command(harness: WorkerHarness, build_id: uuid.UUID, role: Role = Role.WORKSPACE) -> None:
    """Wait until a command waits at `HOLD` in the build's newest sandbox of the role, and release it."""
    await release_held(harness.settings, build_id, role)


async def release_held(settings: Settings, build_id: uuid.UUID, role: Role = Role.WORKSPACE) -> None:
    """Do the same by the settings of a program."""
    sandboxes = Sandboxes(sandbox_config(settings))
    [newest, *_] = await wait_until(lambda: sandboxes.find(str(build_id), role))

    async def connected() -> Sandbox | None:
        with suppress(SandboxUnavailable):  # a connection that was open during an outage is closed at its next use
            return await sandboxes.connect(newest)
        return None

    sandbox = await wait_until(connected)
    command = f"until [ -e {HOLD_FILE} ]; do sleep 0.05; done; rm {HOLD_FILE}"
    await sandbox.run(command, timeout_seconds=DEADLINE, cwd="/")
    await sandboxes.close()


@asynccontextmanager
async def releasing_checks(harness: WorkerHarness, builds: Sequence[uuid.UUID]) -> AsyncIterator[None]:
    """While the block runs, release whatever waits at `HOLD` in the builds' gates: a check that is made again waits
    again."""
    sandboxes = Sandboxes(sandbox_config(harness.settings))

    async def release() -> None:
        while True:
            for build_id in builds:
                with suppress(CofounderError):  # it may be gone meanwhile
                    for found in await sandboxes.find(str(build_id), Role.GATE):
                        sandbox = await sandboxes.connect(found)
                        await sandbox.run(f"rm -f {HOLD_FILE}", timeout_seconds=DEADLINE, cwd="/")
            await asyncio.sleep(2)

    task = asyncio.create_task(release())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        await sandboxes.close()


async def ready_build(harness: WorkerHarness, build_id: uuid.UUID) -> list[EndedWorkflow]:
    """Wait until the build is ready, and close its preview, so that no sandbox is left."""
    row = await harness.finished(build_id)
    assert row.status == Status.READY, row.reason
    preview = harness.client.get_workflow_handle(preview_workflow_id(build_id))
    await preview.cancel()
    with suppress(WorkflowFailureError):
        await preview.result()
    return [EndedWorkflow(f"build-{build_id}", "ready"), EndedWorkflow(preview.id, "cancelled")]


async def until_preview(harness: WorkerHarness, build_id: uuid.UUID, state: str, reason: str | None = None) -> None:
    """Wait until the preview's row has the state, and the reason if one is given."""

    async def is_so() -> bool:
        async with harness.session() as tx:
            row = await tx.session.get(Preview, build_id)
        return row is not None and row.state == state and (reason is None or reason in (row.reason or ""))

    await wait_until(is_so)


async def end_preview(harness: WorkerHarness, build_id: uuid.UUID, status: str) -> EndedWorkflow:
    """Wait until the preview's workflow has ended. `status`: how it ends; `cancelled` cancels it first."""
    handle = harness.client.get_workflow_handle(preview_workflow_id(build_id))
    if status == "cancelled":
        await handle.cancel()
    with suppress(WorkflowFailureError):
        await handle.result()
    return EndedWorkflow(handle.id, status)


async def until_row(harness: WorkerHarness, build_id: uuid.UUID, condition: Callable[[Build], bool]) -> Build:
    """Wait until the build's row meets the condition. Fails the test if the build closes first."""

    async def met() -> Build | None:
        row = await harness.row(build_id)
        if condition(row):
            return row
        assert row.closed_at is None, row.reason
        return None

    return await wait_until(met)


async def until_waiting(harness: WorkerHarness, build_id: uuid.UUID, waiting_for: str) -> str:
    """Wait until the build waits for this party, and return the reason."""
    row = await harness.until(build_id, frozenset({Status.NEEDS_INPUT}))
    assert (row.status, row.waiting_for) == (Status.NEEDS_INPUT, waiting_for), row.reason
    return row.reason or ""


@asynccontextmanager
async def refuse_rows(
    harness: WorkerHarness, table: str, project_id: uuid.UUID, condition: str, name: str, code: str = "P0001"
) -> AsyncIterator[None]:
    """Make the database refuse the project's new rows that meet the condition, in one table, while the block runs.

    `code`: the SQLSTATE of the refusal; by default that of a trigger that raises.
    """
    function = f"refuse_{uuid.uuid4().hex}"
    async with transaction(harness.sessions) as tx:
        await tx.session.execute(
            text(
                f"create function {function}() returns trigger language plpgsql as "
                f"$$ begin raise exception '{name}' using errcode = '{code}'; end $$"
            )
        )
        await tx.session.execute(
            text(
                f"create trigger {function} before insert on {table} for each row "
                f"when (new.project_id = '{project_id}' and {condition}) execute function {function}()"
            )
        )
    try:
        yield
    finally:
        async with transaction(harness.sessions) as tx:
            await tx.session.execute(text(f"drop function {function}() cascade"))


@_scenario("from the brief to the preview")
async def ready(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=SMALL)
    workflows = await ready_build(harness, build_id)
    assert await harness.statuses(build_id) == ["starting", "scaffold", "code", "checks", "ready"]
    async with harness.session() as tx:
        row = await harness.row(build_id)
        project = await tx.session.get_one(Project, row.project_id)
        assert (project.status, row.build_version) == ("mvp_built", 1)
        announcements = (
            await tx.session.scalars(select(BusinessEvent).where(BusinessEvent.build_id == build_id))
        ).all()
        assert [event.type for event in announcements] == ["artifact_generated"]
    return workflows


@_scenario("the account is suspended")
async def failed_suspended(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(await harness.founder(suspended=True))
    row = await harness.finished(build_id)
    assert row.status == Status.FAILED
    assert "suspended" in (row.reason or "")
    return [EndedWorkflow(f"build-{build_id}", "failed")]


@_scenario("the project has no brief")
async def failed_no_brief(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id = await harness.founder()
    build_id = await harness.start(user_id, project_id=await harness.project(user_id, brief={}))
    row = await harness.finished(build_id)
    assert row.status == Status.FAILED
    assert "no idea brief" in (row.reason or "")
    return [EndedWorkflow(f"build-{build_id}", "failed")]


@_scenario("begins with four activities before its first turn, then cancelled")
async def begun(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=steps([hold()]))
    await harness.until_event(build_id, "tool_started")
    await harness.builds.cancel(build_id)
    assert (await harness.finished(build_id)).status == Status.CANCELLED
    history = await harness.client.get_workflow_handle(build_workflow_id(build_id)).fetch_history()
    scheduled = [event.activity_task_scheduled_event_attributes.activity_type.name for event in history.events]
    activities = [name for name in scheduled if name]
    assert activities[:5] == ["load_state", "claim_place", "prepare_build", "open_workspace", "think"]
    assert await harness.statuses(build_id) == ["starting", "scaffold", "cancelled"]
    return [EndedWorkflow(f"build-{build_id}", "cancelled")]


@_scenario("cancelled while a tool runs")
async def cancelled_mid_tool(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=steps([bash("sleep 300 & sleep 300", 400)]))
    await harness.until_event(build_id, "tool_started")
    await harness.builds.cancel(build_id)
    row = await harness.finished(build_id)
    assert row.status == Status.CANCELLED
    [done] = await harness.events(build_id, "tool_done")
    assert done.data["is_error"]
    return [EndedWorkflow(f"build-{build_id}", "cancelled")]


@_scenario("the evidence gate bounces a product whose check tests nothing, and the agent fixes it")
async def gate_bounced(harness: WorkerHarness) -> list[EndedWorkflow]:
    hollow = PRODUCT.replace("python3 -m unittest", "true")
    build_id = await harness.start(script=steps([bash(hollow)], [{"text": "Done."}], [bash(PRODUCT)]))
    workflows = await ready_build(harness, build_id)
    assert [
        event.type for event in await harness.events(build_id) if event.type in ("gate_bounced", "gate_passed")
    ] == [
        "gate_bounced",
        "gate_passed",
    ]
    return workflows


@_scenario("the gate is never passed; a person cancels", gate_attempts=2)
async def gate_exhausted(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=steps([bash("true")]))
    assert "failed its checks 2 times" in await until_waiting(harness, build_id, "founder")
    await harness.builds.cancel(build_id)
    assert (await harness.finished(build_id)).status == Status.CANCELLED
    return [EndedWorkflow(f"build-{build_id}", "cancelled")]


_SLEEP_EVENTS = ("snapshot_stored", "status")

_FOUR_TURNS = steps([bash("echo one")], [bash("echo two")], [bash("echo three")], [bash(PRODUCT)])


@_scenario("today's budget is used up; a wake finds none, another finds some")
async def slept_woken_by_signal(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id, _ = await poor_founder(harness, FOUR_TURNS_A_DAY)
    build_id = await harness.start(user_id, script=_FOUR_TURNS)
    row = await harness.until(build_id, frozenset({Status.SLEEPING}))
    assert row.wakes_at is not None
    assert row.wakes_at.time().isoformat() == "00:00:00"
    sleep_events = [event.data.get("reason") for event in await harness.events(build_id) if event.type in _SLEEP_EVENTS]
    assert sleep_events[-2:] == ["sleep", "Not enough of today's budget is left for the next step."], (
        "the snapshot must come before the status"
    )
    await harness.builds.wake(build_id)
    await until_row(harness, build_id, lambda row: "Checked again" in (row.reason or ""))
    async with transaction(harness.sessions) as tx:
        await change_user(tx, user_id, UserChange(plan="cto_scale"), datetime.now(UTC).date())
    await harness.builds.wake(build_id)
    workflows = await ready_build(harness, build_id)
    [resumed] = await harness.events(build_id, "resumed")
    assert resumed.data["reason"] == "woken by a signal"
    return workflows


@_scenario("today's budget is used up; a new UTC day begins")
async def slept_woken_by_timer(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id, _ = await poor_founder(harness, FOUR_TURNS_A_DAY)
    build_id = await harness.start(user_id, script=_FOUR_TURNS)
    row = await harness.until(build_id, frozenset({Status.SLEEPING}))
    assert row.wakes_at is not None
    left = row.wakes_at - datetime.now(UTC)
    await TimeSkipper(harness.client).fast_forward(harness.handle(build_id), left + timedelta(seconds=1))
    workflows = await ready_build(harness, build_id)
    assert (await harness.events(build_id, "resumed"))[0].data["reason"] == "a new day's budget"
    return workflows


@_scenario("continued as new between turns", continue_as_new_turns=4)
async def continued_as_new(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=steps(*([bash(f"echo {turn}")] for turn in range(9)), [bash(PRODUCT)]))
    return await ready_build(harness, build_id)


@_scenario("the model's API refuses the key; an operator fixes it")
async def needs_operator(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=SMALL, faults=[{"kind": "authentication"}])
    assert "ANTHROPIC_API_KEY" in await until_waiting(harness, build_id, "operator")
    [failed] = await harness.events(build_id, "turn_failed")
    assert "ANTHROPIC_API_KEY" in failed.data["error"]
    await harness.builds.wake(build_id)
    return await ready_build(harness, build_id)


@_scenario("an operator wakes it again and again, in vain: it waits on in a new run", continue_as_new_turns=4)
async def woken_in_vain(harness: WorkerHarness) -> list[EndedWorkflow]:
    refused = {"kind": "authentication", "after": 1, "times": 6}
    build_id = await harness.start(script=steps([bash("echo one")], [bash(PRODUCT)]), faults=[refused])
    for times in range(6):
        await harness.until_event(build_id, "turn_failed", count=times + 1)
        assert (await harness.until(build_id, frozenset({Status.NEEDS_INPUT}))).waiting_for == "operator"
        await harness.builds.wake(build_id)
    workflows = await ready_build(harness, build_id)
    chain = await chain_of(harness.client, str(build_id))
    wakes = [sum(event.HasField("workflow_execution_signaled_event_attributes") for event in run) for run in chain]
    # The row says that the build waits before it goes on to a new run, so the fifth wake may still reach the old one.
    assert wakes in ([4, 2], [5, 1]), wakes
    scheduled = [event.activity_task_scheduled_event_attributes for run in chain for event in run]
    asked = [json.loads(each.input.payloads[0].data) for each in scheduled if each.activity_type.name == "think"]
    notes = [(each["turn"], set(each.get("notes", []))) for each in asked]
    assert notes == [(1, set()), *[(2, set())] * 7, (3, {"resumed"})], "what happened in a turn is for the next one"
    done = await harness.events(build_id, "tool_done")
    assert [event.data["is_error"] for event in done] == [False, False], "each call runs once"
    return workflows


_DECLINED = {"kind": "refusal", "category": "cyber", "explanation": "It looks like an exploit.", "lasting": True}


@_scenario("a safety check declines an answer; the agent goes on without it")
async def declined(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(
        script=steps([bash("echo one")], [bash(PRODUCT)]), faults=[{**_DECLINED, "after": 1}]
    )
    workflows = await ready_build(harness, build_id)
    assert Status.NEEDS_INPUT not in await harness.statuses(build_id), "no one needs to be asked"
    async with harness.session() as tx:
        message = (await tx.session.get_one(Message, (build_id, 3, "user"))).content
        assert "It looks like an exploit." in message
        assert await tx.session.get(Message, (build_id, 2, "assistant")) is None
    return workflows


@_scenario("safety checks decline three answers in a row; the founder lets the model try again")
async def refused(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=SMALL, faults=[{**_DECLINED, "times": 3}])
    reason = await until_waiting(harness, build_id, "founder")
    assert "computer security" in reason
    assert "It looks like an exploit." in reason
    assert len(await harness.events(build_id, "turn_answered")) == 3
    await harness.builds.wake(build_id)
    return await ready_build(harness, build_id)


@_scenario("the model's answers are cut off or empty again and again; the founder lets it try again")
async def fruitless(harness: WorkerHarness) -> list[EndedWorkflow]:
    times = {"rate_limited": 1, "max_tokens": 2, "empty": 2, "pause_turn": 1}
    faults = [{"kind": kind, "times": number} for kind, number in times.items()]
    build_id = await harness.start(script=SMALL, faults=faults)
    assert "cut off or empty" in await until_waiting(harness, build_id, "founder")
    assert len(await harness.events(build_id, "turn_answered")) == 5
    await harness.builds.wake(build_id)
    workflows = await ready_build(harness, build_id)
    [failed] = await harness.events(build_id, "turn_failed")
    assert "can be asked again in 1 s" in failed.data["error"]
    return workflows


@_scenario("the agent works without a word; it is reminded to speak")
async def silent(harness: WorkerHarness) -> list[EndedWorkflow]:
    turns = [*([bash(f"echo {number}")] for number in range(SILENT)), [bash(PRODUCT)]]
    build_id = await harness.start(script={"kind": "steps", "turns": turns})
    workflows = await ready_build(harness, build_id)
    async with transaction(harness.sessions) as tx:
        heard = await tx.session.scalars(
            select(Message.turn).where(Message.build_id == build_id, Message.content.contains(prompt.SPEAK))
        )
        assert list(heard) == [SILENT + 1]
    return workflows


_HOSTILE = (
    "duplicate_tool_id",
    "repeated_tool_id",
    "bad_tool_name",
    "bad_call_id",
    "infinite_number",
    "deep_nesting",
    "text_tool_call",
    "citations_delta",
    "unknown_block",
    "server_tool_use",
    "broken_tool_json",
    "zero_usage",
)


@_scenario("the model says things that no one expects; each is paid once, and the build goes on by itself")
async def hostile(harness: WorkerHarness) -> list[EndedWorkflow]:
    turns = [*([bash(f"echo {number}")] for number in range(len(_HOSTILE) + 1)), [bash(PRODUCT)]]
    faults = [{"kind": kind, "times": 1, "after": 1 if kind == _HOSTILE[0] else 0} for kind in _HOSTILE]
    build_id = await harness.start(script={"kind": "steps", "turns": turns}, faults=faults)
    workflows = await ready_build(harness, build_id)
    async with transaction(harness.sessions) as tx:
        rows = (await tx.session.scalars(select(LedgerEntry).where(LedgerEntry.build_id == build_id))).all()
    assert sorted(row.state for row in rows if row.state != "settled") == ["estimated"]
    assert all(row.cost > 0 for row in rows)
    served = {line["request_id"] for line in await harness.served()}
    assert {row.request_id for row in rows} <= served
    assert len(await harness.events(build_id, "turn_failed")) == 1
    return workflows


@_scenario("no sandbox can be opened; cancelled while waiting", e2b_api_key="an-unknown-key")
async def no_sandbox(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=SMALL)
    assert "E2B_API_KEY" in await until_waiting(harness, build_id, "operator")
    first_request = (await harness.row(build_id)).status_seq
    await harness.builds.wake(build_id)
    await until_row(harness, build_id, lambda row: row.status_seq >= first_request + 2)
    await until_waiting(harness, build_id, "operator")
    await harness.builds.cancel(build_id)
    assert (await harness.finished(build_id)).status == Status.CANCELLED
    return [EndedWorkflow(f"build-{build_id}", "cancelled")]


@_scenario("the agent repeats itself: steered, then the founder is asked")
async def repeating(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=steps(*([bash("echo again")] for _ in range(5)), [bash(PRODUCT)]))
    assert "same call" in await until_waiting(harness, build_id, "founder")
    assert await harness.events(build_id, "guard"), "the agent must be steered first"
    await harness.builds.wake(build_id)
    workflows = await ready_build(harness, build_id)
    async with harness.session() as tx:
        messages = await tx.session.scalars(select(Message.content).where(Message.build_id == build_id))
        assert sum("try again, without an answer" in content for content in messages) == 1
    return workflows


@_scenario("the tool calls are used up: a last turn, then the founder decides", tool_call_cap=3)
async def tool_call_cap(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(
        script=steps([bash("echo 1")], [bash("echo 2")], [bash("echo 3")], [bash(PRODUCT)], [bash("echo 5")])
    )
    assert "3 tool calls" in await until_waiting(harness, build_id, "founder")
    await harness.builds.wake(build_id)
    return await ready_build(harness, build_id)


@_scenario("the founder takes what is there to the gate", tool_call_cap=1)
async def finished_early(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=steps([bash(PRODUCT)], [bash("echo last")], [bash("echo more")]))
    await until_waiting(harness, build_id, "founder")
    await harness.handle(build_id).signal(FINISH)
    return await ready_build(harness, build_id)


_GROWTH = 400
"""More events than a build of a few turns leaves. One that waits in a loop leaves more within seconds."""


@_scenario("the model does not accept the conversation; the founder has what is there checked")
async def finished_without_the_model(harness: WorkerHarness) -> list[EndedWorkflow]:
    refused = {"kind": "request_too_large", "after": 1, "times": None}
    build_id = await harness.start(script=SMALL, faults=[refused])
    assert "Finish the build" in await until_waiting(harness, build_id, "founder")
    await harness.handle(build_id).signal(FINISH)
    workflows = await ready_build(harness, build_id)
    assert len((await harness.handle(build_id).fetch_history()).events) < _GROWTH
    assert len(await harness.events(build_id, "turn_failed")) == 1, "the model must not be asked again"
    return workflows


@_scenario("the product is not there when it is checked without the model; the agent reads the findings later")
async def finished_in_vain(harness: WorkerHarness) -> list[EndedWorkflow]:
    # The conversation, the one that begins again, and that one once more after the check.
    refused = {"kind": "request_too_large", "after": 1, "times": 3}
    build_id = await harness.start(
        script=steps([bash("echo one")], [bash("echo two")], [bash(PRODUCT)]), faults=[refused]
    )
    first_request = await until_waiting(harness, build_id, "founder")
    first = (await harness.row(build_id)).status_seq
    await harness.handle(build_id).signal(FINISH)
    await harness.until_event(build_id, "gate_bounced")
    await until_row(harness, build_id, lambda row: row.status == Status.NEEDS_INPUT and row.status_seq != first)
    assert (await harness.row(build_id)).reason == first_request, "finish is done with, so the build waits"
    await harness.builds.wake(build_id)
    workflows = await ready_build(harness, build_id)
    async with harness.session() as tx:
        message = (await tx.session.get_one(Message, (build_id, 3, "user"))).content
        assert "did not pass" in message
    assert len((await harness.handle(build_id).fetch_history()).events) < _GROWTH
    return workflows


@_scenario("the model's answer does not come; the founder does not wait for it", stream_idle_seconds=3600)
async def finished_while_thinking(harness: WorkerHarness) -> list[EndedWorkflow]:
    stalled = {"kind": "stall", "seconds": 3600, "after": 1}
    build_id = await harness.start(script=SMALL, faults=[stalled])
    await harness.until_event(build_id, "turn_started", turn=2)
    await harness.handle(build_id).signal(FINISH)
    return await ready_build(harness, build_id)


@_scenario("calls that only read, side by side, between calls that change; one does not fit its schema")
async def mixed_calls(harness: WorkerHarness) -> list[EndedWorkflow]:
    def glob(pattern: str) -> dict[str, Any]:
        return {"tool": "glob", "input": {"pattern": pattern}}

    mixed = [glob("a*"), glob("b*"), bash("echo x > x"), {"tool": "bash", "input": {}}, glob("c*"), glob("d*")]
    build_id = await harness.start(script={"kind": "steps", "turns": [mixed, [bash(PRODUCT)]]})
    return await ready_build(harness, build_id)


@_scenario("the snapshot at a phase boundary fails, and the build goes on")
async def snapshot_failed(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id = await harness.founder()
    project_id = await harness.project(user_id)
    async with refuse_rows(harness, "snapshots", project_id, "new.reason = 'phase'", "no snapshots today"):
        build_id = await harness.start(user_id, project_id=project_id, script=SMALL)
        workflows = await ready_build(harness, build_id)
    assert await harness.events(build_id, "snapshot_failed")
    return workflows


@_scenario("what follows a build fails, and the build stays ready")
async def hook_failed(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id = await harness.founder()
    project_id = await harness.project(user_id)
    async with refuse_rows(harness, "business_events", project_id, "true", "not today"):
        build_id = await harness.start(user_id, project_id=project_id, script=SMALL)
        workflows = await ready_build(harness, build_id)
    assert await harness.events(build_id, "hook_failed")
    return workflows


@_scenario("its conversation is summed up, and goes on", model_prices=changed_prices(compact_at=40_000))
async def compacted(harness: WorkerHarness) -> list[EndedWorkflow]:
    lines = [[bash(f"yes 'step {number}' | head -c 14000")] for number in range(14)]
    build_id = await harness.start(script=steps([bash(PRODUCT)], *lines))
    workflows = await ready_build(harness, build_id)
    [event] = await harness.events(build_id, "compacted")
    assert event.data["tokens_before"] > 40_000
    async with harness.session() as tx:
        messages = await tx.session.scalars(
            select(Message.content).where(Message.build_id == build_id, Message.role == "user")
        )
        [note] = [content for content in messages if "Your conversation was summed up" in content]
    assert "A small product" in note, "the commits"
    return workflows


@_scenario("the sandbox is lost while a tool runs; the workspace is restored")
async def sandbox_lost(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=steps([bash(PRODUCT)], [bash("sleep 300", 400)], [bash("ls")]))
    await harness.until_event(build_id, "tool_started", count=2)
    sandbox_id = (await harness.row(build_id)).sandbox_id
    assert sandbox_id is not None
    sandboxes = Sandboxes(sandbox_config(harness.settings))
    await sandboxes.kill(sandbox_id)
    await sandboxes.close()
    workflows = await ready_build(harness, build_id)
    [resumed] = await harness.events(build_id, "resumed")
    assert resumed.data["reason"] == "the sandbox was lost"
    return workflows


@_scenario("the sandbox is replaced before its provider would end it", sandbox_max_seconds=2)
async def sandbox_replaced(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(
        script=steps([bash("echo kept > kept.txt; sleep 1.2")], [bash(f"cat kept.txt; {PRODUCT}")])
    )
    workflows = await ready_build(harness, build_id)
    resumed = [event.data for event in await harness.events(build_id, "resumed")]
    assert resumed
    assert "near the end of the time" in resumed[0]["reason"]
    assert "was replaced: the workspace was restored from snapshot 1" in resumed[0]["changes"][0]
    assert not any(event.data["is_error"] for event in await harness.events(build_id, "tool_done"))
    return workflows


@_scenario(
    "the sandbox is lost while the model thinks; the agent looks first what that has cost", stream_idle_seconds=8
)
async def sandbox_lost_in_thought(harness: WorkerHarness) -> list[EndedWorkflow]:
    stalled = {"kind": "stall", "seconds": 300, "after": 2}
    edit = {"tool": "write_file", "input": {"file_path": "notes.md", "content": "one"}}
    turns = [bash(PRODUCT)], [edit], [{"text": "Done."}], [bash("git add -A; git commit -qm 'Add notes'")]
    build_id = await harness.start(script=steps(*turns), faults=[stalled])
    await harness.until_event(build_id, "turn_started", turn=3)
    await _with_sandbox(harness, build_id, lambda sandboxes, sandbox_id: sandboxes.kill(sandbox_id))
    workflows = await ready_build(harness, build_id)
    [resumed] = await harness.events(build_id, "resumed")
    assert resumed.data["reason"] == "the sandbox was lost"
    assert resumed.data["changes"][1] == "Edits made since were applied again: write_file: notes.md."
    assert [event.data["reason"] for event in await harness.events(build_id, "snapshot_stored")] == [
        "phase",
        "restored",
        "phase",
        "gate",
    ]
    return workflows


@_scenario("the sandbox's disk is full; the workspace is restored in another")
async def sandbox_full(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=steps([hold()], [bash(PRODUCT)]) | {"repeats_lost": True})
    await harness.until_event(build_id, "tool_started")
    await _with_sandbox(harness, build_id, _fill_up)
    await harness.until_event(build_id, "resumed")
    await release_command(harness, build_id)  # the agent repeats the call that was lost with the sandbox
    workflows = await ready_build(harness, build_id)
    [resumed] = await harness.events(build_id, "resumed")
    assert resumed.data["reason"] == "the sandbox's disk was full"
    return workflows


async def _with_sandbox(
    harness: WorkerHarness, build_id: uuid.UUID, do: Callable[[Sandboxes, str], Awaitable[None]]
) -> None:
    sandbox_id = (await harness.row(build_id)).sandbox_id
    assert sandbox_id is not None
    sandboxes = Sandboxes(sandbox_config(harness.settings))
    await do(sandboxes, sandbox_id)
    await sandboxes.close()


async def _fill_up(sandboxes: Sandboxes, sandbox_id: str) -> None:
    """Make the runner in the sandbox fail to claim calls for lack of disk space, and release the waiting command."""
    sandbox = await sandboxes.connect(sandbox_id)
    await sandbox.run(f"until [ -e {HOLD_FILE} ]; do sleep 0.05; done", timeout_seconds=DEADLINE, cwd="/")
    claim_code = "        os.mkdir(folder)\n    except FileExistsError:"
    assert claim_code in RUNNER_SOURCE
    full = RUNNER_SOURCE.replace(
        claim_code, "        raise OSError(errno.ENOSPC, 'No space')\n    except FileExistsError:"
    )
    await sandbox.write(f"{JOURNAL}/{RUNNER_MODULE}.py", full)
    await sandbox.run(f"rm {HOLD_FILE}", timeout_seconds=DEADLINE, cwd="/")


@_scenario("a preview is kept open, extended, closed by time, and opened again from the snapshot")
async def preview(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=SMALL)
    assert (await harness.finished(build_id)).status == Status.READY
    handle = harness.client.get_workflow_handle(preview_workflow_id(build_id))
    await handle.signal(EXTEND, 7200)
    await TimeSkipper(harness.client).fast_forward(handle, timedelta(hours=3))
    await handle.result()
    await harness.builds.open_preview(build_id, 600, seq=100)

    async def is_open() -> bool:
        return any(event.data["state"] == "open" for event in (await harness.events(build_id, "preview"))[-1:])

    await wait_until(is_open)
    again = harness.client.get_workflow_handle(preview_workflow_id(build_id))
    first, second = handle.result_run_id, (await again.describe()).run_id
    assert first != second
    await again.cancel()
    with suppress(WorkflowFailureError):
        await again.result()
    return [EndedWorkflow(handle.id, "cancelled")]


@_scenario("a preview of a build that has no snapshot fails readably")
async def preview_failed(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id = await harness.founder(suspended=True)
    build_id = await harness.start(user_id)
    await harness.finished(build_id)
    await harness.builds.open_preview(build_id, 600)
    handle = harness.client.get_workflow_handle(preview_workflow_id(build_id))
    with suppress(WorkflowFailureError):
        await handle.result()
    return [EndedWorkflow(handle.id, "failed")]


@_scenario(
    "the reaper closes what is left of a build whose workflow an operator ended",
    own_database=True,
    reaper_spares_seconds=0,
)
async def reaper(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=steps([bash("sleep 300", 400)]))
    await harness.until_event(build_id, "tool_started")
    sandboxes = Sandboxes(sandbox_config(harness.settings))
    strange = await sandboxes.create(str(uuid.uuid4()), Role.WORKSPACE)
    other = await harness.start(script=steps([bash("sleep 300", 400)]))
    await harness.until_event(other, "tool_started")
    works_in, newer = (await harness.row(other)).sandbox_id, await sandboxes.create(str(other), Role.WORKSPACE)
    # Any workflow that has ended under the preview's id: one that is not found would prove no end.
    queue = harness.settings.temporal_task_queue
    await harness.client.execute_workflow(REAPER_WORKFLOW, id=preview_workflow_id(build_id), task_queue=queue)
    await harness.handle(build_id).terminate("an operator's decision")
    async with transaction(harness.sessions) as tx:
        tx.session.add(Preview(build_id=build_id, state="open", seq=3, url="http://gone", sandbox_id="gone"))

    async def is_reaped() -> bool:
        return str(build_id) not in {each.build_id for each in await sandboxes.list_all()}

    # All rows are compared, as the workflow under the preview's id is of another type, which is not listed.
    reaper_id = await reap_until(harness, is_reaped, everything=True)
    row = await harness.row(build_id)
    assert row.status == Status.FAILED
    assert "terminated" in (row.reason or "")
    left = {each.id: each.build_id for each in await sandboxes.list_all()}
    assert strange.id in left, "a sandbox of another deployment must stay"
    assert {works_in, newer.id} <= left.keys(), "both must stay: one may be about to replace the other"
    assert str(build_id) not in left.values()
    async with harness.session() as tx:
        calls = (await tx.session.scalars(select(ToolCall).where(ToolCall.build_id == build_id))).all()
        assert [(call.state, call.is_error) for call in calls] == [("done", True)]
        open_calls = select(LedgerEntry).where(LedgerEntry.build_id == build_id, LedgerEntry.state == "open")
        assert (await tx.session.scalars(open_calls)).all() == []
        assert (await tx.session.get_one(Preview, build_id)).state == "closed"
    async with transaction(harness.sessions) as tx:
        (await tx.session.get_one(Build, other)).sandbox_id = newer.id
    await reap(harness)
    left = {each.id: each.build_id for each in await sandboxes.list_all()}
    assert works_in not in left, "a replaced sandbox must go"
    assert newer.id in left
    await sandboxes.kill(strange.id)
    await sandboxes.close()
    await harness.builds.cancel(other)
    assert (await harness.finished(other)).status == Status.CANCELLED
    return [EndedWorkflow(reaper_id, "done")]


@_scenario(
    "an operator gives it more tool calls while it works, and it does not stop at its first cap", tool_call_cap=2
)
async def changed_settings(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=steps([hold()], [bash("echo 2")], [bash("echo 3")], [bash(PRODUCT)]))
    await harness.until_event(build_id, "tool_started")
    changed = await change_settings(harness.sessions, build_id, {"tool_call_cap": 50})
    assert await notify_of_settings(harness.builds, changed) == 1
    await release_command(harness, build_id)
    workflows = await ready_build(harness, build_id)
    assert "needs_input" not in await harness.statuses(build_id)
    return workflows


LOOKED_AT = steps(
    [bash(PRODUCT)],
    [bash("python3 server.py >/dev/null 2>&1 &"), {"tool": "take_screenshot", "input": {"path": "/"}}],
)
"""A product whose agent looks at its page once."""


async def queues_of_work(harness: WorkerHarness, build_id: uuid.UUID) -> dict[str, set[str]]:
    """The roles on whose task queues the build's activities were, by the activity's name."""
    task_queue = harness.settings.temporal_task_queue
    found: dict[str, set[str]] = {}
    for event in (await harness.handle(build_id).fetch_history()).events:
        if event.HasField("activity_task_scheduled_event_attributes"):
            scheduled = event.activity_task_scheduled_event_attributes
            role = scheduled.task_queue.name.removeprefix(task_queue).removeprefix("-") or "build"
            found.setdefault(scheduled.activity_type.name, set()).add(role)
    return found


@_scenario(
    "archives and pages have task queues of their own, each polled by its own worker", separate_roles="archive,browser"
)
async def separate_roles(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=LOOKED_AT)
    workflows = await ready_build(harness, build_id)
    queues = await queues_of_work(harness, build_id)
    of_archives = ("open_workspace", "snapshot_workspace")
    assert {name: queues.pop(name) for name in of_archives} == {name: {"archive"} for name in of_archives}
    assert queues.pop("run_evidence_gate") == {"browser"}
    assert queues.pop("dispatch_tool") == {"build", "browser"}
    assert set.union(*queues.values()) == {"build"}
    return workflows
