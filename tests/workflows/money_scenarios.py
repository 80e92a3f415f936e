"""The paths on which money, slots or an account's state stop a build, and on which it continues."""

import asyncio
import uuid
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select, update
from temporalio.testing import TimeSkipper

from clients.sandbox import Sandboxes, sandbox_config
from db import limits, money, switches
from db.builds import BuildRequest, insert_build
from db.models import Build, LedgerEntry, Limit, Message, PlanTier, Switch, User
from db.transaction import transaction
from db.users import UserChange, change_user
from domain.errors import NotFound
from domain.limits import FLEET_LIMIT_REACHED, LimitName
from domain.status import SleepPolicy, Status
from domain.switches import SwitchScope, hold_reason
from services.notifications import notify_released
from tests.harness.reaper import reap, reap_until
from tests.harness.scripts import PRODUCT, SMALL, bash, hold, steps
from tests.harness.wait import wait_until
from tests.harness.worker import FOUR_TURNS_A_DAY, WorkerHarness, poor_founder
from tests.workflows.scenarios import (
    Drive,
    EndedWorkflow,
    Scenario,
    ready_build,
    refuse_rows,
    release_command,
    until_row,
    until_waiting,
)
from worker import wired_worker

MONEY_SCENARIOS: list[Scenario] = []


def _scenario(
    path: str, *, own_database: bool = False, **settings: Any
) -> Callable[[Callable[[WorkerHarness], Awaitable[list[EndedWorkflow]]]], None]:
    def add(drive: Drive) -> None:
        MONEY_SCENARIOS.append(Scenario(drive.__name__, path, drive, settings, own_database))

    return add


def _echoes(turns: int, command_after: str = "true") -> list[list[dict[str, Any]]]:
    return [[bash(f"echo {turn}; {command_after}")] for turn in range(turns)]


_START_WRITING_SERVER = (
    "echo dev.log >> .git/info/exclude; (while :; do date +%N >> dev.log; sleep 0.02; done) > /dev/null 2>&1 &"
)
"""Starts a dev server that keeps writing to the workspace. Its log is part of snapshots but of no commit."""


async def _until_asleep(harness: WorkerHarness, build_id: uuid.UUID, after: int = 0) -> Build:
    """Wait until the build sleeps, in a status later than the one with the sequence number `after`."""
    return await until_row(harness, build_id, lambda row: row.status == Status.SLEEPING and row.status_seq > after)


async def _until_waiting_for_person(harness: WorkerHarness, build_id: uuid.UUID, after: int = 0) -> Build:
    """Wait until the build waits for a person, in a status later than the one with the sequence number `after`."""
    return await until_row(harness, build_id, lambda row: row.status == Status.NEEDS_INPUT and row.status_seq > after)


async def _assert_costs_nothing(harness: WorkerHarness, build_id: uuid.UUID) -> None:
    """Check that a sleeping build uses nothing: no activity is pending, and its only sandbox is paused."""
    await harness.until_idle(build_id)  # the status is written before the workflow starts to wait
    sandboxes = Sandboxes(sandbox_config(harness.settings))
    assert [each.state for each in await sandboxes.list_all() if each.build_id == str(build_id)] == ["paused"]
    await sandboxes.close()


async def _until_falling_asleep(harness: WorkerHarness, build_id: uuid.UUID, snapshots: int) -> None:
    """Wait until this many attempts at the snapshot before the build's sleep have failed and another is pending."""

    async def tries_on() -> bool:
        described = (await harness.handle(build_id).describe()).raw_description
        return any(_is_snapshot(each) and each.attempt > snapshots for each in described.pending_activities)

    await wait_until(tries_on, look_seconds=0.1)


def _is_snapshot(pending: Any) -> bool:
    return bool(pending.activity_type.name == "snapshot_workspace")


async def _skip_night(harness: WorkerHarness, build_id: uuid.UUID, *, first: bool) -> None:
    await harness.until_idle(build_id)  # the status is written before the workflow starts to wait
    now = datetime.now(UTC)
    midnight = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC)
    night = midnight - now + timedelta(seconds=1) if first else timedelta(days=1)
    await TimeSkipper(harness.client).fast_forward(harness.handle(build_id), night)


async def _change_plan(harness: WorkerHarness, user_id: str, plan: str, *, tell: bool = True) -> None:
    async with transaction(harness.sessions) as tx:
        await change_user(tx, user_id, UserChange(plan=plan), datetime.now(UTC).date())
        builds = await money.open_builds_of(tx, user_id)
    for build_id in builds if tell else ():
        await harness.builds.signal_budget_changed(build_id)


async def spend(harness: WorkerHarness, user_id: str, cost: int, day: date, state: str = "settled") -> uuid.UUID:
    """Insert a ledger entry of another build of the user, and return its id."""
    project_id, entry = await harness.project(user_id), uuid.uuid4()
    async with transaction(harness.sessions) as tx:
        other = await insert_build(tx, BuildRequest(project_id, user_id, "Another."))
        assert other is not None
        other.status, other.closed_at = Status.FAILED, datetime.now(UTC)
        closed_at = None if state == "open" else datetime.now(UTC)
        tx.session.add(
            LedgerEntry(
                id=entry,
                build_id=other.id,
                user_id=user_id,
                turn=1,
                day=day,
                model="claude-sonnet-5-5",
                state=state,
                cost=cost,
                closed_at=closed_at,
            )
        )
    return entry


async def _user_message(harness: WorkerHarness, build_id: uuid.UUID, turn: int) -> str:
    """What the agent reads before this turn, apart from tool results."""
    async with harness.session() as tx:
        mine = Message.build_id == build_id, Message.turn == turn, Message.role != "assistant"
        return "\n".join(await tx.session.scalars(select(Message.content).where(*mine)))


@_scenario("three nights: each evening the agent winds down, each morning it goes on from its handoff note")
async def three_nights(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id, _ = await poor_founder(harness, FOUR_TURNS_A_DAY)
    note = [{"text": "Half of it is done; the other half comes next."}]
    build_id = await harness.start(
        user_id,
        script=steps(*_echoes(2, _START_WRITING_SERVER), note, *_echoes(7, _START_WRITING_SERVER), [bash(PRODUCT)]),
    )
    row = await _until_asleep(harness, build_id)
    for night in range(3):
        assert row.wakes_at is not None
        await _assert_costs_nothing(harness, build_id)
        seq = row.status_seq
        await _skip_night(harness, build_id, first=night == 0)
        if night < 2:
            row = await _until_asleep(harness, build_id, seq + 1)
    workflows = await ready_build(harness, build_id)
    assert (await harness.statuses(build_id)).count("sleeping") == 3
    # The first day: turn 1 finds that four worst cases do not fit, turn 2 tells the agent, turn 3 ends with the note.
    assert "nearly used up" in await _user_message(harness, build_id, 2)
    morning = await _user_message(harness, build_id, 4)
    assert "a new day's budget" in morning
    assert "the other half comes next" in morning
    assert "no handoff note" in await _user_message(harness, build_id, 8)
    resumed = await harness.events(build_id, "resumed")
    assert [event.data["reason"] for event in resumed] == ["a new day's budget"] * 3
    assert all(event.data["continuing_from"] for event in resumed)
    assert not any(event.data["changes"] for event in resumed), "a dev server's log must not count as a change"
    async with harness.session() as tx:
        days = await tx.session.scalars(select(LedgerEntry.day).where(LedgerEntry.build_id == build_id).distinct())
        assert len(days.all()) == 4, "each call must count towards the day on which it began"
    return workflows


@_scenario("its founder wakes it after an hour, with a bigger plan")
async def woken_after_an_hour(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id, _ = await poor_founder(harness, FOUR_TURNS_A_DAY)
    build_id = await harness.start(user_id, script=steps(*_echoes(4), [bash(PRODUCT)]))
    await _until_asleep(harness, build_id)
    if datetime.now(UTC).hour < 22:  # an hour later is the same day
        await TimeSkipper(harness.client).fast_forward(harness.handle(build_id), timedelta(hours=1))
    await _change_plan(harness, user_id, "cto_scale", tell=False)
    for _ in range(3):  # the second and the third change nothing
        await harness.builds.wake(build_id)
    workflows = await ready_build(harness, build_id)
    assert [event.data["reason"] for event in await harness.events(build_id, "resumed")] == ["woken by a signal"]
    return workflows


@_scenario("the most nights are slept: the founder is asked, and lets it sleep on; then the plan changes")
async def nights_exhausted(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id, _ = await poor_founder(harness, FOUR_TURNS_A_DAY)
    build_id = await harness.start(user_id, script=steps(*_echoes(9), [bash(PRODUCT)]), max_nights=1)
    await _until_asleep(harness, build_id)
    await _skip_night(harness, build_id, first=True)
    waiting = await _until_waiting_for_person(harness, build_id)
    assert waiting.waiting_for == "founder"
    assert "slept for a night" in (waiting.reason or "")
    await harness.builds.wake(build_id)
    await _until_asleep(harness, build_id, waiting.status_seq)
    await _change_plan(harness, user_id, "cto_scale")
    return await ready_build(harness, build_id)


@_scenario("a top-up wakes three builds and is enough for them", reaper_seconds=3600)
async def woken_by_top_up(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id, _ = await poor_founder(harness, FOUR_TURNS_A_DAY)
    script = steps(*_echoes(4), [bash(PRODUCT)])
    builds = [await harness.start(user_id, script=script) for _ in range(3)]
    for build_id in builds:
        await _until_asleep(harness, build_id)
    async with transaction(harness.sessions) as tx:
        today = datetime.now(UTC).date()
        for _ in range(2):  # the second has the same key and adds nothing
            await money.top_up(tx, user_id, 10_000_000, today, key="once")
        state = await money.budget_of(tx, user_id, today)
        assert state.allowance == FOUR_TURNS_A_DAY + 10_000_000
        assert await money.open_builds_of(tx, user_id) == builds
    for build_id in builds:
        await harness.builds.signal_budget_changed(build_id)
    return [each for build_id in builds for each in await ready_build(harness, build_id)]


@_scenario("the cycle's money is gone: asked before a sandbox is opened; the next cycle begins tomorrow")
async def new_cycle(harness: WorkerHarness) -> list[EndedWorkflow]:
    today = datetime.now(UTC).date()
    tomorrow = today + timedelta(days=1)
    plan = await harness.plan(90_000_000)
    user_id = await harness.founder(plan, renewal_day=tomorrow.day)
    await spend(harness, user_id, 90_000_000, today - timedelta(days=1))
    build_id = await harness.start(user_id, script=SMALL)
    row = await _until_waiting_for_person(harness, build_id)
    assert (row.waiting_for, row.sandbox_id) == ("founder", None)
    assert "$0.00" in (row.reason or "")
    assert tomorrow.isoformat() in (row.reason or "")
    await _skip_night(harness, build_id, first=True)
    return await ready_build(harness, build_id)


@_scenario("no allowance, and the same in the next cycle; then a tiny one; told with figures each time; then no limit")
async def too_small(harness: WorkerHarness) -> list[EndedWorkflow]:
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    user_id = await harness.founder(await harness.plan(0), renewal_day=tomorrow.day)
    build_id = await harness.start(user_id, script=SMALL)
    row = await _until_waiting_for_person(harness, build_id)
    assert "$0.00," in (row.reason or "")
    await _skip_night(harness, build_id, first=True)
    row = await _until_waiting_for_person(harness, build_id, row.status_seq)
    assert "$0.00," in (row.reason or "")
    assert row.wakes_at is not None
    assert (row.wakes_at.date() - tomorrow).days >= 28, "the next check is when the cycle after that begins"
    await _change_plan(harness, user_id, await harness.plan(5_000 * 31))
    row = await _until_waiting_for_person(harness, build_id, row.status_seq)
    assert "$0.0" in (row.reason or "")
    assert "$0.00," not in (row.reason or "")
    await _change_plan(harness, user_id, "cto_scale")
    return await ready_build(harness, build_id)


@_scenario("the plan is downgraded below what is spent; the build sleeps at its next turn, with an alert")
async def ceiling(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id, plan = await poor_founder(harness, 4_000_000)
    build_id = await harness.start(user_id, script=steps([hold()], *_echoes(2), [bash(PRODUCT)]))
    await harness.until_event(build_id, "tool_started")
    today = datetime.now(UTC).date()
    await spend(harness, user_id, 3_900_000, today)
    async with transaction(harness.sessions) as tx:
        await tx.session.execute(update(PlanTier).where(PlanTier.name == plan).values(cycle_budget=1_000_000))
        await money.recompute(tx, user_id, today)
        state = await money.budget_of(tx, user_id, today)
        assert state.allowance == state.spent + state.reserved, "the allowance must not fall below the spending"
    await spend(harness, user_id, 390_000, today)  # a call elsewhere cost more than its reservation
    await release_command(harness, build_id)
    await _until_asleep(harness, build_id)
    [alert] = await harness.events(build_id, "budget")
    assert alert.data["alert"]
    assert alert.data["budget_level"] == "red"
    await _change_plan(harness, user_id, "cto_scale")
    return await ready_build(harness, build_id)


async def has_waited_for_money(harness: WorkerHarness, build_id: uuid.UUID) -> bool:
    """Whether a think activity of the build has returned "busy", as other builds have reserved the money."""
    history = await harness.handle(build_id).fetch_history()
    results = [event.activity_task_completed_event_attributes.result for event in history.events]
    return any(b'"busy"' in payload.data for result in results for payload in result.payloads)


@_scenario("the money is reserved for another build's call; the build waits a moment")
async def busy(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id, _ = await poor_founder(harness, 1_000_000)
    today = datetime.now(UTC).date()
    entry = await spend(harness, user_id, 1_090_000, today, state="open")
    build_id = await harness.start(user_id, script=steps(*_echoes(1), [bash(PRODUCT)]))
    await until_row(harness, build_id, lambda row: row.sandbox_id is not None)
    await wait_until(lambda: has_waited_for_money(harness, build_id))
    assert not await harness.events(build_id, "turn_started")
    async with transaction(harness.sessions) as tx:
        await tx.session.execute(
            update(LedgerEntry)
            .where(LedgerEntry.id == entry)
            .values(state="settled", cost=1000, closed_at=datetime.now(UTC))
        )
    await harness.builds.signal_budget_changed(build_id)
    workflows = await ready_build(harness, build_id)
    assert "sleeping" not in await harness.statuses(build_id)
    return workflows


@_scenario(
    "one place: the second build waits for the first, the third is cancelled, a terminated one gives its place",
    own_database=True,
)
async def queued(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id = await harness.founder(await harness.plan(None, concurrent_builds=1))
    first = await harness.start(user_id, script=steps([bash("sleep 300", 400)]))
    await harness.until_event(first, "tool_started")
    second = await harness.start(user_id, script=SMALL)
    await _until_queued(harness, second, "this one starts automatically")
    third = await harness.start(user_id, script=SMALL)
    await _until_queued(harness, third, "1 running, 1 queued")
    await harness.builds.cancel(third)
    assert (await harness.finished(third)).status == Status.CANCELLED
    await harness.handle(first).terminate("an operator's decision")

    async def is_closed() -> bool:
        return (await harness.row(first)).closed_at is not None

    await reap_until(harness, is_closed)
    await reap(harness)
    workflows = await ready_build(harness, second)
    assert (await harness.statuses(second))[:2] == ["queued", "starting"]
    return [EndedWorkflow(f"build-{third}", "cancelled"), *workflows]


@_scenario("so long in line that the workflow continues as new")
async def long_in_line(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id = await harness.founder(await harness.plan(None, concurrent_builds=1))
    first = await harness.start(user_id, script=steps([bash("sleep 300", 400)]))
    await harness.until_event(first, "tool_started")
    second = await harness.start(user_id, script=SMALL)
    await _until_queued(harness, second, "this one starts automatically")
    began = (await harness.handle(second).describe()).run_id

    async def is_another_run() -> bool:
        await harness.builds.admit(second)  # instead of waiting for hours
        return (await harness.handle(second).describe()).run_id != began

    await wait_until(is_another_run)
    await harness.builds.cancel(first)
    assert (await harness.finished(first)).status == Status.CANCELLED
    return await ready_build(harness, second)


@_scenario("a build that ends admits the next in line")
async def admitted(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id = await harness.founder(await harness.plan(None, concurrent_builds=1))
    first = await harness.start(user_id, script=steps([hold()], [bash(PRODUCT)]))
    await harness.until_event(first, "tool_started")
    second = await harness.start(user_id, script=SMALL)
    await _until_queued(harness, second, "this one starts automatically")
    await release_command(harness, first)
    await ready_build(harness, first)
    return await ready_build(harness, second)


@_scenario("the account is suspended while the build works, and reopened")
async def held(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id = await harness.founder()
    build_id = await harness.start(user_id, script=steps([hold("echo kept > kept")], [bash(PRODUCT)]))
    await harness.until_event(build_id, "tool_started")
    async with transaction(harness.sessions) as tx:
        await tx.session.execute(update(User).where(User.id == user_id).values(suspended=True))
    await release_command(harness, build_id)
    row = await _until_waiting_for_person(harness, build_id)
    assert row.waiting_for == "operator"
    assert [event.data["reason"] for event in await harness.events(build_id, "snapshot_stored")] == ["sleep"]
    await harness.builds.wake(build_id)  # nothing has changed yet
    row = await _until_waiting_for_person(harness, build_id, row.status_seq)
    async with transaction(harness.sessions) as tx:
        await change_user(tx, user_id, UserChange(suspended=False), datetime.now(UTC).date())
    await harness.builds.signal_budget_changed(build_id)
    return await ready_build(harness, build_id)


@_scenario("builds are switched off", autonomous_agent=False)
async def switched_off(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=SMALL)
    assert "Builds are switched off" in await until_waiting(harness, build_id, "kill_switch")
    await harness.builds.cancel(build_id)
    assert (await harness.finished(build_id)).status == Status.CANCELLED
    return [EndedWorkflow(f"build-{build_id}", "cancelled")]


@_scenario("builds are switched off while one works, and on again", own_database=True)
async def switched_off_midway(harness: WorkerHarness) -> list[EndedWorkflow]:
    settings = harness.settings.model_copy(update={"temporal_task_queue": f"switch-{uuid.uuid4()}"})
    own = WorkerHarness(settings, harness.client, harness.sessions, harness.model_url)
    async with wired_worker(settings, harness.client) as worker, worker:
        build_id = await own.start(script=steps([hold("echo kept > kept")], [bash(PRODUCT)]))
        await harness.until_event(build_id, "tool_started")
    off = settings.model_copy(update={"autonomous_agent": False})
    async with wired_worker(off, harness.client) as worker, worker:
        await release_command(harness, build_id)
        row = await _until_waiting_for_person(harness, build_id)
        assert (row.waiting_for, "Builds are switched off" in (row.reason or "")) == ("kill_switch", True)
        feed = [(event.type, event.data) for event in await harness.events(build_id)]
        reasons = [data["reason"] for kind, data in feed if kind == "snapshot_stored"]
        assert set(reasons) == {"sleep"}, feed
        if len(reasons) > 1:  # seen on loaded machines, cause unknown: one is enough
            warnings.warn(f"the work was saved {len(reasons)} times: {feed}", stacklevel=1)
        await _assert_costs_nothing(harness, build_id)
        await own.builds.wake(build_id)
        await _until_waiting_for_person(harness, build_id, row.status_seq)
    async with wired_worker(settings, harness.client) as worker, worker:
        async with transaction(harness.sessions) as tx:
            later = datetime.now(UTC) + timedelta(minutes=1)
            missed = await money.missed_notifications(tx, later, switched_on=True)
            assert build_id in [each.build_id for each in missed], "the reaper must notify it that builds are on again"
        await own.builds.signal_budget_changed(build_id)
        return await ready_build(own, build_id)


@_scenario("its model is switched off while it works, and on again", own_database=True)
async def switched_off_live(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=steps([hold("echo kept > kept")], [bash(PRODUCT)]))
    await harness.until_event(build_id, "tool_started")
    model = (await harness.row(build_id)).model or ""
    async with _removed_afterwards(harness):
        async with transaction(harness.sessions) as tx:
            await switches.switch_off(tx, SwitchScope.MODEL, model, reason="too expensive", by="a test")
        await release_command(harness, build_id)
        row = await _until_waiting_for_person(harness, build_id)
        assert (row.waiting_for, row.reason) == ("kill_switch", hold_reason(SwitchScope.MODEL))
        await _assert_costs_nothing(harness, build_id)
        await harness.builds.wake(build_id)
        row = await _until_waiting_for_person(harness, build_id, row.status_seq)
        assert build_id not in await notify_released(harness.sessions, harness.builds, autonomous_agent=True)
        async with transaction(harness.sessions) as tx:
            assert await switches.switch_on(tx, SwitchScope.MODEL, model)
        assert build_id not in await notify_released(harness.sessions, harness.builds, autonomous_agent=False)
        assert build_id in await notify_released(harness.sessions, harness.builds, autonomous_agent=True)
        assert build_id not in await notify_released(harness.sessions, harness.builds, autonomous_agent=True)
        return await ready_build(harness, build_id)


@_scenario("the service has used up its own limit of the day, which is raised", own_database=True, reaper_seconds=3600)
async def fleet_limit(harness: WorkerHarness) -> list[EndedWorkflow]:
    build_id = await harness.start(script=steps([hold("echo kept > kept")], [bash(PRODUCT)]))
    await harness.until_event(build_id, "tool_started")
    async with _removed_afterwards(harness):
        async with transaction(harness.sessions) as tx:
            of_build = select(func.max(LedgerEntry.day)).where(LedgerEntry.build_id == build_id)
            day = await tx.session.scalar(of_build)
            assert day is not None
            spent = (await limits.fleet_spending(tx, day)).spent
            await limits.set_limit(tx, LimitName.FLEET_DAY, spent + 1, by="a test", today=day)
        await release_command(harness, build_id)
        row = await _until_asleep(harness, build_id)
        assert row.reason == FLEET_LIMIT_REACHED
        await _assert_costs_nothing(harness, build_id)
        async with transaction(harness.sessions) as tx:
            limit = await limits.find_limit(tx, LimitName.FLEET_DAY)
            assert limit is not None
            assert limit.reached_on == day
        await harness.builds.wake(build_id)
        row = await _until_asleep(harness, build_id, row.status_seq)
        assert row.reason == FLEET_LIMIT_REACHED
        async with transaction(harness.sessions) as tx:
            await limits.set_limit(tx, LimitName.FLEET_DAY, spent + 100_000_000, by="a test", today=day)
        assert build_id in await notify_released(harness.sessions, harness.builds, autonomous_agent=True)
        assert build_id not in await notify_released(harness.sessions, harness.builds, autonomous_agent=True)
        return await ready_build(harness, build_id)


@asynccontextmanager
async def _removed_afterwards(harness: WorkerHarness) -> AsyncIterator[None]:
    """Remove switches and limits at the end: they hold for other tests, too."""
    try:
        yield
    finally:
        async with transaction(harness.sessions) as tx:
            await tx.session.execute(delete(Switch))
            await tx.session.execute(delete(Limit))


@_scenario("money and one wake come while it falls asleep", reaper_seconds=3600)
async def woken_while_falling_asleep(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id, _ = await poor_founder(harness, FOUR_TURNS_A_DAY)
    project_id = await harness.project(user_id)
    async with refuse_rows(harness, "snapshots", project_id, "new.reason = 'sleep'", "not yet"):
        build_id = await harness.start(user_id, project_id=project_id, script=steps(*_echoes(4), [bash(PRODUCT)]))
        await _until_falling_asleep(harness, build_id, 1)
        await _change_plan(harness, user_id, "cto_scale", tell=False)
        await harness.builds.wake(build_id)
    workflows = await ready_build(harness, build_id)
    [resumed] = await harness.events(build_id, "resumed")
    assert resumed.data["reason"] == "woken by a signal"
    return workflows


@_scenario("wakes all the time: awake, winding down, asleep, and as it continues as new", continue_as_new_turns=2)
async def woken_all_the_time(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id, _ = await poor_founder(harness, FOUR_TURNS_A_DAY)
    build_id = await harness.start(user_id, script=steps(*_echoes(6), [bash(PRODUCT)]))

    async def wake_on() -> None:
        with suppress(NotFound):
            while True:
                await harness.builds.wake(build_id)
                await asyncio.sleep(0.3)

    waking = asyncio.create_task(wake_on())
    await _until_asleep(harness, build_id)
    await _change_plan(harness, user_id, "cto_scale", tell=False)
    workflows = await ready_build(harness, build_id)
    waking.cancel()
    done = await harness.events(build_id, "tool_done")
    assert len(done) == 7, "each call must run once"
    assert [event.data["is_error"] for event in done] == [False] * 7
    assert "needs_input" not in await harness.statuses(build_id)
    return workflows


@_scenario("its conversation is summed up instead of winding down, as that leaves more of the day")
async def compacted_instead_of_winding_down(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id, _ = await poor_founder(harness, 1_000_000)
    lines = [[bash(f"yes 'step {number}' | head -c 14000")] for number in range(12)]
    build_id = await harness.start(user_id, script=steps(*lines, [hold()], *_echoes(4), [bash(PRODUCT)]))
    await harness.until_event(build_id, "tool_started", count=13)
    await spend(harness, user_id, 600_000, datetime.now(UTC).date())
    await release_command(harness, build_id)
    workflows = await ready_build(harness, build_id)
    [event] = await harness.events(build_id, "compacted")
    assert "Today's budget is running low" in event.data["reason"]
    assert await harness.events(build_id, "budget") == [], "the agent is not told to wind down"
    return workflows


@_scenario("told to stop rather than to sleep when the budget is used up")
async def told_to_stop(harness: WorkerHarness) -> list[EndedWorkflow]:
    user_id, _ = await poor_founder(harness, FOUR_TURNS_A_DAY)
    build_id = await harness.start(user_id, script=steps(*_echoes(9)), sleep_policy=SleepPolicy.STOP)
    row = await harness.finished(build_id)
    assert row.status == Status.FAILED
    assert "policy to stop" in (row.reason or "")
    assert [event.data["reason"] for event in await harness.events(build_id, "snapshot_stored")] == ["end"]
    return [EndedWorkflow(f"build-{build_id}", "failed")]


async def _until_queued(harness: WorkerHarness, build_id: uuid.UUID, reason: str) -> None:
    row = await until_row(harness, build_id, lambda row: reason in (row.reason or "").lower())
    assert row.status == Status.QUEUED
