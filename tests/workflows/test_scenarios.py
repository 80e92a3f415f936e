"""Every path of a build ends as it should, on real servers."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from clients.browser import Browser
from local.stack import LocalStack
from tests.harness.worker import WorkerHarness
from tests.workflows.admission_scenarios import ADMISSION_SCENARIOS
from tests.workflows.money_scenarios import MONEY_SCENARIOS
from tests.workflows.outage_scenarios import OUTAGE_SCENARIOS
from tests.workflows.permit_scenarios import PERMIT_SCENARIOS
from tests.workflows.plan_scenarios import PLAN_SCENARIOS
from tests.workflows.reaper_scenarios import REAPER_SCENARIOS
from tests.workflows.recovery_scenarios import RECOVERY_SCENARIOS
from tests.workflows.scenarios import SCENARIOS, EndedWorkflow, Scenario, scenario_harness
from tests.workflows.steering_scenarios import STEERING_SCENARIOS

ALL = [
    *ADMISSION_SCENARIOS,
    *MONEY_SCENARIOS,
    *STEERING_SCENARIOS,
    *PLAN_SCENARIOS,
    *OUTAGE_SCENARIOS,
    *PERMIT_SCENARIOS,
    *REAPER_SCENARIOS,
    *RECOVERY_SCENARIOS,
    *SCENARIOS,
]

AT_ONCE = 4
"""Scenarios that run side by side. Most of a build's time is waiting."""


@pytest.fixture(scope="module")
async def scenario_tasks(
    request: pytest.FixtureRequest, stack: LocalStack, browser: Browser, harness: WorkerHarness
) -> AsyncIterator[dict[str, asyncio.Task[list[EndedWorkflow]]]]:
    """The selected scenarios by name, started in the order of their tests. All with default settings share a worker."""
    free = asyncio.Semaphore(AT_ONCE)

    async def drive(scenario: Scenario) -> list[EndedWorkflow]:
        async with free:
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


@pytest.mark.parametrize("name", [each.name for each in ALL])
async def test_path(scenario_tasks: dict[str, asyncio.Task[list[EndedWorkflow]]], name: str) -> None:
    assert await scenario_tasks[name]
