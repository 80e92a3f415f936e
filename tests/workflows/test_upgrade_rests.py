"""Builds move to another version in each rest that no scenario of `upgrade_scenarios.py` has: they wait on as before,
and no sandbox is resumed for it."""

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from sqlalchemy import update

from clients.sandbox import Sandboxes, sandbox_config
from db.models import Build, LedgerEntry, ModelBucket
from db.transaction import transaction
from db.users import UserChange, change_user
from domain.names import build_workflow_id
from domain.status import Dependency, Status
from local.stack import LocalStack
from tests.harness.api_server import new_database
from tests.harness.away import away_harness
from tests.harness.repeats import assert_nothing_was_repeated
from tests.harness.scripts import PRODUCT, SMALL, bash, hold, steps
from tests.harness.wait import wait_until
from tests.harness.worker import WorkerHarness, poor_founder, worker_harness
from tests.workflows.money_scenarios import has_waited_for_money, spend
from tests.workflows.outage_scenarios import recover
from tests.workflows.scenarios import end_preview, ready_build, refuse_rows, release_command, until_row
from tests.workflows.upgrade_scenarios import (
    activities_of_last_run,
    ask_until_moved,
    give_work_to,
    second_version,
    until_known_to_be_away,
    versions_if_all_are_visible,
)

pytestmark = pytest.mark.thorough

_LIMITED_MODEL = "claude-haiku-5-5"
"""The model of one build alone: what its API refuses, all builds with it wait for."""

_STOPPED = {"kind": "authentication", "after": 1, "times": 1}


@asynccontextmanager
async def _first_version(stack: LocalStack, **settings: Any) -> AsyncIterator[WorkerHarness]:
    """Run a worker of the version `one`, which has the new work."""
    version: dict[str, Any] = {
        "temporal_deployment_name": f"of-{uuid.uuid4().hex[:8]}",
        "temporal_worker_build_id": "one",
    }
    database_url = await new_database(stack)
    async with worker_harness(stack, database_url=database_url, **version, **settings) as harness:
        await give_work_to(harness, "one")
        yield harness


async def _assert_moves_at_rest(harness: WorkerHarness, rests: Mapping[uuid.UUID, set[str]]) -> None:
    """Move builds. They wait on as before with their sandboxes as they were, after nothing but these activities."""
    before = {}
    for build_id in rests:
        await harness.until_idle(build_id)
        before[build_id] = await harness.row(build_id), await _sandbox_states(harness, build_id)
    for build_id, activities in rests.items():
        await ask_until_moved(harness, build_workflow_id(build_id))
        await harness.until_idle(build_id)
        row, sandboxes = before[build_id]
        after = await harness.row(build_id)
        assert _shown(after) == _shown(row)
        assert await _sandbox_states(harness, build_id) == sandboxes
        assert set(await activities_of_last_run(harness, build_id)) <= activities
        assert not await harness.events(build_id, "resumed")


def _shown(row: Build) -> tuple[object, ...]:
    return row.status, row.status_seq, row.reason, row.waiting_for, row.dependency


async def _sandbox_states(harness: WorkerHarness, build_id: uuid.UUID) -> list[tuple[str, str]]:
    sandboxes = Sandboxes(sandbox_config(harness.settings))
    states = [(each.id, each.state) for each in await sandboxes.list_all() if each.build_id == str(build_id)]
    await sandboxes.close()
    return states


async def _assert_goes_on(harness: WorkerHarness, build_id: uuid.UUID) -> None:
    await ready_build(harness, build_id)
    await _assert_ran_on_both(harness, build_id)


async def _assert_ran_on_both(harness: WorkerHarness, build_id: uuid.UUID) -> None:
    assert await wait_until(partial(versions_if_all_are_visible, harness, build_id)) == ["one", "two"]
    await assert_nothing_was_repeated(harness, build_id)


async def test_waiting_for_an_operator_the_account_a_rate_or_another_call(stack: LocalStack) -> None:
    async with _first_version(stack, model_rate_patience_seconds=1) as harness:
        asks = await harness.start(script=steps([bash("echo one")], [bash(PRODUCT)]), faults=[_STOPPED])
        suspended = await harness.founder()
        on_hold = await harness.start(suspended, script=steps([hold("echo kept > kept")], [bash(PRODUCT)]))
        await harness.until_event(on_hold, "tool_started")
        await _suspend(harness, suspended, is_suspended=True)
        await release_command(harness, on_hold)
        of_model = await harness.founder(model_overrides={"coder": _LIMITED_MODEL})
        fault = {"kind": "rate_limited", "retry_after": 3600}
        limited = await harness.start(of_model, script=SMALL, faults=[fault])
        poor, _ = await poor_founder(harness, 1_000_000)
        entry = await spend(harness, poor, 1_090_000, datetime.now(UTC).date(), state="open")
        busy = await harness.start(poor, script=steps([bash("echo 1")], [bash(PRODUCT)]))
        for build_id in (asks, on_hold):
            row = await until_row(harness, build_id, lambda row: row.status == Status.NEEDS_INPUT)
            assert row.waiting_for == "operator"
        await harness.until_event(limited, "turn_failed")
        await wait_until(lambda: has_waited_for_money(harness, busy))
        async with second_version(harness):
            await _assert_moves_at_rest(harness, {asks: set(), on_hold: set(), limited: {"think"}, busy: {"think"}})
            await harness.builds.wake(asks)
            await _suspend(harness, suspended, is_suspended=False)
            await harness.builds.signal_budget_changed(on_hold)
            async with transaction(harness.sessions) as tx:
                await tx.session.execute(update(ModelBucket).values(blocked_until=None))
                settled = {"state": "settled", "cost": 1000, "closed_at": datetime.now(UTC)}
                await tx.session.execute(update(LedgerEntry).where(LedgerEntry.id == entry).values(**settled))
            await harness.builds.wake(limited)
            await harness.builds.signal_budget_changed(busy)
            for build_id in (asks, on_hold, limited, busy):
                await _assert_goes_on(harness, build_id)


async def _suspend(harness: WorkerHarness, user_id: str, *, is_suspended: bool) -> None:
    async with transaction(harness.sessions) as tx:
        await change_user(tx, user_id, UserChange(suspended=is_suspended), datetime.now(UTC).date())


async def test_waiting_for_a_permit(stack: LocalStack) -> None:
    async with _first_version(stack, sandbox_quota=1) as harness:
        woken = await harness.start(script=steps([bash("echo one")], [bash(PRODUCT)]), faults=[_STOPPED])
        await harness.until(woken, frozenset({Status.NEEDS_INPUT}))
        holder = await harness.start(script=steps([hold()], [bash(PRODUCT)]))
        await harness.until_event(holder, "tool_started")
        await harness.builds.wake(woken)
        unstarted = await harness.start(script=SMALL)
        for build_id in (woken, unstarted):
            row = await until_row(harness, build_id, lambda row: row.status == Status.WAITING)
            assert row.dependency == Dependency.CAPACITY
        async with second_version(harness):
            await _assert_moves_at_rest(
                harness, {woken: {"resume_workspace", "claim_permit"}, unstarted: {"open_workspace", "claim_permit"}}
            )
            await release_command(harness, holder)
            for build_id in (holder, woken, unstarted):
                assert (await harness.finished(build_id)).status == Status.READY
                await _assert_ran_on_both(harness, build_id)
                await end_preview(harness, build_id, "cancelled")


async def test_waiting_for_the_model(stack: LocalStack) -> None:
    async with _first_version(stack) as first, away_harness(first) as away:
        harness = away.harness
        await give_work_to(harness, "one")
        away.take(Dependency.MODEL)
        build_id = await harness.start(script=SMALL)
        row = await until_row(harness, build_id, lambda row: row.status == Status.WAITING)
        assert row.dependency == Dependency.MODEL
        await until_known_to_be_away(away, Dependency.MODEL)
        async with second_version(harness):
            await _assert_moves_at_rest(harness, {build_id: {"read_dependency"}})
            away.give_back(Dependency.MODEL)
            await recover(away, build_id)
            await _assert_goes_on(harness, build_id)


async def test_without_the_database_it_moves_after_the_step_that_needs_it(stack: LocalStack) -> None:
    """No build rests for the database: Temporal repeats the step, and the build moves at the end of its turn."""
    async with _first_version(stack) as harness, AsyncExitStack() as outage:
        hollow = PRODUCT.replace("python3 -m unittest", "true")
        project_id = await harness.project(user_id := await harness.founder())
        refusal = refuse_rows(harness, "snapshots", project_id, "true", "no space", code="53100")
        await outage.enter_async_context(refusal)
        script = steps([bash(hollow)], [{"text": "Done."}], [bash(PRODUCT)])
        build_id = await harness.start(user_id, project_id=project_id, script=script)
        await until_row(harness, build_id, lambda row: row.status == Status.CHECKS)
        async with second_version(harness):
            await harness.builds.ask_to_upgrade(build_workflow_id(build_id))
            await outage.aclose()
            await _assert_goes_on(harness, build_id)
        assert not {"waiting", "needs_input"} & set(await harness.statuses(build_id))
