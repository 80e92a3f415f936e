"""Every path of a build, on real servers: it ends as it should."""

import pytest

from clients.browser import Browser
from local.stack import LocalStack
from tests.workflows.scenarios import SCENARIOS, Scenario
from tests.workshop import workshop


@pytest.mark.parametrize("scenario", [pytest.param(each, id=each.name) for each in SCENARIOS])
async def test_path(stack: LocalStack, browser: Browser, scenario: Scenario) -> None:
    async with workshop(stack, browser, **scenario.settings) as shop:
        assert await scenario.drive(shop)
