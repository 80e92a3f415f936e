"""Every path of a build, on real servers: it ends as it should."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from clients.browser import Browser
from local.stack import LocalStack
from tests.harness.worker import WorkerHarness, worker_harness
from tests.workflows.money_scenarios import MONEY_SCENARIOS
from tests.workflows.scenarios import SCENARIOS, Ended, Scenario
from tests.workflows.steering_scenarios import STEERING_SCENARIOS

ALL = [*MONEY_SCENARIOS, *STEERING_SCENARIOS, *SCENARIOS]

AT_ONCE = 4
"""How many paths are under way side by side: most of a build is waiting."""


@pytest.fixture(scope="module")
async def driven(
    request: pytest.FixtureRequest, stack: LocalStack, browser: Browser, harness: WorkerHarness
) -> AsyncIterator[dict[str, asyncio.Task[list[Ended]]]]:
    """The chosen scenarios by name, under way in the order of their tests; what changes no setting shares a worker."""
    free = asyncio.Semaphore(AT_ONCE)

    async def drive(scenario: Scenario) -> list[Ended]:
        async with free:
            if not scenario.settings:
                return await scenario.drive(harness)
            async with worker_harness(stack, browser, **scenario.settings) as own:
                return await scenario.drive(own)

    chosen = {item.name for item in request.session.items}
    tasks = {each.name: asyncio.create_task(drive(each)) for each in ALL if f"test_path[{each.name}]" in chosen}
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.wait(tasks.values())


@pytest.mark.parametrize("name", [each.name for each in ALL])
async def test_path(driven: dict[str, asyncio.Task[list[Ended]]], name: str) -> None:
    assert await driven[name]
