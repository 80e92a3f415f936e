"""Every path of a build ends as it should, on real servers."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from clients.browser import Browser
from local.stack import LocalStack
from tests.harness.worker import WorkerHarness
from tests.replay.record import HISTORIES
from tests.workflows.admission_scenarios import ADMISSION_SCENARIOS
from tests.workflows.encrypted_scenarios import ENCRYPTED_SCENARIOS
from tests.workflows.erasure_scenarios import ERASURE_SCENARIOS
from tests.workflows.money_scenarios import MONEY_SCENARIOS
from tests.workflows.outage_scenarios import OUTAGE_SCENARIOS
from tests.workflows.permit_scenarios import PERMIT_SCENARIOS
from tests.workflows.plan_scenarios import PLAN_SCENARIOS
from tests.workflows.reaper_scenarios import REAPER_SCENARIOS
from tests.workflows.recovery_scenarios import RECOVERY_SCENARIOS
from tests.workflows.scenarios import SCENARIOS, EndedWorkflow, Scenario, scenario_harness
from tests.workflows.steering_scenarios import STEERING_SCENARIOS
from tests.workflows.upgrade_scenarios import UPGRADE_SCENARIOS
from tests.workflows.webhook_scenarios import WEBHOOK_SCENARIOS

ALL = [
    *ADMISSION_SCENARIOS,
    *MONEY_SCENARIOS,
    *STEERING_SCENARIOS,
    *PLAN_SCENARIOS,
    *OUTAGE_SCENARIOS,
    *PERMIT_SCENARIOS,
    *REAPER_SCENARIOS,
    *WEBHOOK_SCENARIOS,
    *RECOVERY_SCENARIOS,
    *UPGRADE_SCENARIOS,
    *SCENARIOS,
    *ENCRYPTED_SCENARIOS,
    *ERASURE_SCENARIOS,
]

_THOROUGH = frozenset(
    {
        # What two other paths show, one after the other.
        *("long_in_line", "waited_as_new", "long_wait_for_permit"),
        *("woken_without_permit_for_long", "finished_at_the_gate", "finished_while_asleep", "finished_while_away"),
        *("said_while_asleep", "restored_when_woken", "started_over_asleep", "started_over_asking"),
        *("woken_all_the_time", "restored_while_waiting", "cancelled_at_gate"),
        # Another cause of the same wait, or another moment of the same act.
        *("woken_after_an_hour", "admitted", "switched_off_live", "told_to_stop", "woken_while_falling_asleep"),
        *("slept_woken_by_timer", "preview_not_opened", "fruitless", "asked_about_circle", "sandbox_lost_in_thought"),
        *("cancelled_while_away", "cancelled_without_store", "cancelled_without_database", "finished_early"),
        "store_away",
        *("finished_in_vain", "encrypted", "erased", "separate_roles"),
        # A service counts as away only after a minute of attempts to resume.
        "woken_while_away",
        # Two versions of the workers; the drills of upgrades have the same.
        *("moved", "moved_while_away", "moved_at_gate"),
        # `make test` has these as fast drills.
        *("fleet_limit", "reset_ready"),
        # It has a longer build that is summed up, and one that continues as new.
        *("compacted", "continued_as_new"),
    }
)
"""Paths that only `make drills` takes. `make test` replays the stored history of each."""

AT_ONCE = 4
"""Scenarios that run side by side. Most of a build's time is waiting."""

_IDLE = ("finished_while_thinking", "preview_away", "cancelled_with_work", "model_away", "sandbox_away")
"""Paths in which nothing happens for half a minute or longer, until attempts are over or a cancel has arrived. They run
beside the others from the start: at the end, nothing else would run during their waits."""

_IDLE_AT_ONCE = 3


@pytest.fixture(scope="module")
async def scenario_tasks(
    request: pytest.FixtureRequest, stack: LocalStack, browser: Browser, harness: WorkerHarness
) -> AsyncIterator[dict[str, asyncio.Task[list[EndedWorkflow]]]]:
    """The selected scenarios by name, started in the order of their tests. All with default settings share a worker."""
    free, beside = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(_IDLE_AT_ONCE)

    async def drive(scenario: Scenario) -> list[EndedWorkflow]:
        async with beside if scenario.name in _IDLE else free:
            if not scenario.settings and not scenario.own_database:
                return await scenario.drive(harness)
            async with scenario_harness(stack, scenario, browser) as own:
                return await scenario.drive(own)

    chosen = {item.name for item in request.session.items}
    tasks = {each.name: asyncio.create_task(drive(each)) for each in ALL if f"test_path[{each.name}]" in chosen}
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.wait(tasks.values())


@pytest.mark.parametrize(
    "name",
    [pytest.param(each.name, marks=[pytest.mark.thorough] if each.name in _THOROUGH else []) for each in ALL],
)
async def test_path(scenario_tasks: dict[str, asyncio.Task[list[EndedWorkflow]]], name: str) -> None:
    assert await scenario_tasks[name]


def test_each_thorough_path_is_known_and_has_a_history() -> None:
    assert {each.name for each in ALL} >= _THOROUGH | set(_IDLE)
    for name in _THOROUGH:
        assert list(HISTORIES.glob(f"{name}-*")), name
