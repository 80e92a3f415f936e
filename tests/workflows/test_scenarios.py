"""Every path of a build, on real servers: it ends as it should."""

import pytest

from local.stack import LocalStack
from tests.workflows.scenarios import SCENARIOS, Scenario
from tests.workshop import workshop


@pytest.mark.parametrize("scenario", [pytest.param(each, id=each.name) for each in SCENARIOS])
async def test_path(stack: LocalStack, scenario: Scenario) -> None:
    async with workshop(stack, **scenario.settings) as shop:
        assert await scenario.drive(shop)
