"""The fleet's daily limit under a storm of calls, and switches that are turned while builds run."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncEngine

from db import switches
from db.models import Switch
from db.session import make_engine
from db.transaction import transaction
from domain.status import Status
from domain.switches import SwitchScope
from local.stack import LocalStack
from services.notifications import notify_released
from tests.harness.scripts import PRODUCT, bash, hold, steps
from tests.harness.worker import WorkerHarness
from tests.integration.db.money_storm import Fate, Fleet, fleet_weather
from tests.workflows.scenarios import release_command, until_row

Figure = Callable[[str], None]

USERS = 8
LIMIT = 150_000
"""µ$ a day: room for about six calls at their worst case."""


@pytest.fixture
async def engine(stack: LocalStack) -> AsyncIterator[AsyncEngine]:
    made = make_engine(stack.environment["DATABASE_URL"], pool_size=20)
    yield made
    await made.dispose()


@pytest.mark.fast
async def test_fleet_limit(engine: AsyncEngine, harness: WorkerHarness, figure: Figure) -> None:
    """D8: eight users with unlimited plans make sixteen calls at once under a limit of the fleet's day"""

    def think(user: int, number: int, fate: Fate) -> Callable[[Fleet], Awaitable[None]]:
        return lambda fleet: fleet.storms[user].think(number, fate)

    fates = (Fate.ANSWERED, Fate.CRASHED_AFTER, Fate.ANSWERED, Fate.STALLED_AFTER, Fate.ANSWERED)
    rounds = [[think(user, number, fate) for user in range(USERS) for number in range(2)] for fate in fates]
    fleet = await fleet_weather(engine, harness.builds, 7, rounds, users=USERS, limit=LIMIT)
    assert 60 <= fleet.highest <= 100
    figure(f"{fleet.calls} calls made, {fleet.highest} % of the limit spent and reserved at most")


async def test_switch_while_builds_run(harness: WorkerHarness, figure: Figure) -> None:
    """D8: all builds are switched off while three work, and on again"""
    script = steps([hold("echo kept > kept")], [bash(PRODUCT)])
    builds = [await harness.start(script=script) for _ in range(3)]
    for build_id in builds:
        await harness.until_event(build_id, "tool_started")
    try:
        async with transaction(harness.sessions) as tx:
            await switches.switch_off(tx, SwitchScope.FLEET, "", reason="a drill", by="a drill")
        for build_id in builds:
            await release_command(harness, build_id)
            row = await until_row(harness, build_id, lambda row: row.status == Status.NEEDS_INPUT)
            assert row.waiting_for == "kill_switch"
        async with transaction(harness.sessions) as tx:
            await switches.switch_on(tx, SwitchScope.FLEET, "")
        notified = await notify_released(harness.sessions, harness.builds, autonomous_agent=True)
        assert set(builds) <= set(notified)
        for build_id in builds:
            assert (await harness.finished(build_id)).status == Status.READY
    finally:
        async with transaction(harness.sessions) as tx:
            await tx.session.execute(delete(Switch))
    figure(f"{len(builds)} builds waited for the switch, were notified and are ready")
