"""Outages of every server: builds wait by themselves, and go on by themselves."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from time import monotonic

import pytest
from sqlalchemy import update
from temporalio.testing import TimeSkipper

from db.models import DependencyState
from db.transaction import transaction
from domain.outage import MOST_RAMP
from domain.status import CLOSED, Dependency, Status
from local.stack import PartName
from tests.harness.away import Away, away_harness
from tests.harness.faults import fault_harness
from tests.harness.scripts import PRODUCT, bash, hold, steps
from tests.harness.wait import wait_until
from tests.harness.worker import WorkerHarness
from tests.workflows.scenarios import release_command

Figure = Callable[[str], None]

OUTAGE = timedelta(hours=2)

_DATABASE_SECONDS = 385.0
"""The outage after which builds waited for a person for ever."""

_TEMPORAL_SECONDS = 300.0

_SETTLED = frozenset({Status.WAITING, *CLOSED})

_SLOW_CHECK = PRODUCT.replace("python3 -m unittest", "sleep 5; python3 -m unittest")
_ECHOES = [[bash(f"echo {number} >> log")] for number in range(6)]


def _script(phase: int) -> dict[str, object]:
    """A script whose build is in one of four phases when the outage begins; the fifth begins with it."""
    match phase:
        case 0:
            return steps([hold("echo held")], [bash(PRODUCT)])
        case 1:
            return steps(*_ECHOES, [bash(PRODUCT)])
        case 2:
            return steps([bash(PRODUCT)], *_ECHOES)
        case _:
            return steps([bash(_SLOW_CHECK)])


async def _start_in_every_phase(away: Away, count: int) -> list[uuid.UUID]:
    harness = away.harness
    builds = [await harness.start(script=_script(number % 5)) for number in range(count)]
    for number, build_id in enumerate(builds):
        if number % 5 == 0:
            await harness.until_event(build_id, "tool_started")
    return builds


async def _go_on(away: Away, builds: Sequence[uuid.UUID]) -> None:
    """Run the prober until no build waits any more. It probes at once, which saves the time between its runs."""

    async def have_gone_on() -> bool:
        async with transaction(away.harness.sessions) as tx:
            due = update(DependencyState).values(next_probe_at=datetime.now(UTC))
            await tx.session.execute(due.where(DependencyState.state == "down"))
        await away.probe()
        return all([(await away.harness.row(each)).status != Status.WAITING for each in builds])

    await wait_until(have_gone_on, look_seconds=0.5)


async def _most_starts_a_second(away: Away, builds: Sequence[uuid.UUID]) -> int:
    """The most builds that went on in one second after a wait."""
    seconds: Counter[int] = Counter()
    for build_id in builds:
        events = await away.harness.events(build_id, "status")
        for before, after in pairwise(events):
            if before.data["status"] == Status.WAITING:
                seconds[int(after.created_at.timestamp())] += 1
    return max(seconds.values(), default=0)


async def _two_hours_without(away: Away, dependency: Dependency, builds: list[uuid.UUID]) -> int:
    """Take the dependency away for two hours in which builds begin, work and end; returns how many waited."""
    harness = away.harness
    away.take(dependency)
    begun = await harness.start(script=steps([bash(PRODUCT)]))
    builds.append(begun)
    for number, build_id in enumerate(builds[:-1]):
        if number % 5 == 0 and dependency is not Dependency.SANDBOX:
            await release_command(harness, build_id)

    async def are_settled() -> bool:
        return all([(await harness.row(each)).status in _SETTLED for each in builds])

    await wait_until(are_settled, look_seconds=0.5)
    waiting = [each for each in builds if (await harness.row(each)).status == Status.WAITING]
    skipper = TimeSkipper(harness.client)
    await asyncio.gather(*(skipper.fast_forward(harness.handle(each), OUTAGE) for each in waiting))
    assert all([(await harness.row(each)).status == Status.WAITING for each in waiting])
    away.give_back(dependency)
    await _go_on(away, builds)
    if dependency is Dependency.SANDBOX:
        for build_id in builds[:-1:5]:
            await release_command(harness, build_id)
    return len(waiting)


async def _assert_all_are_ready(harness: WorkerHarness, builds: Sequence[uuid.UUID]) -> None:
    for build_id in builds:
        row = await harness.finished(build_id)
        assert row.status == Status.READY, row.reason
        assert Status.NEEDS_INPUT not in await harness.statuses(build_id), "a person was asked"


@pytest.mark.parametrize("dependency", [Dependency.STORE, Dependency.SANDBOX, Dependency.MODEL])
async def test_two_hours_without_a_dependency(harness: WorkerHarness, figure: Figure, dependency: Dependency) -> None:
    """Two simulated hours without a dependency, with builds in every phase."""
    count = 30
    async with away_harness(harness) as away:
        builds = await _start_in_every_phase(away, count - 1)
        waited = await _two_hours_without(away, dependency, builds)
        await _assert_all_are_ready(away.harness, builds)
        starts = await _most_starts_a_second(away, builds)
    assert starts <= MOST_RAMP
    figure(f"{dependency}: {waited} of {count} builds waited, all ready, no one asked, {starts} starts a second")


async def _without(part: PartName, seconds: float, figure: Figure) -> None:
    """Take a server away from a worker for real seconds, with builds in a call, between turns and at their start."""
    async with fault_harness() as faults:
        front, harness = await faults.front(), faults.harness()
        await faults.worker(harness, front)
        held = await harness.start(script=steps([hold("echo held")], [bash(PRODUCT)]))
        works = await harness.start(script=steps(*_ECHOES, [bash(PRODUCT)]))
        await harness.until_event(held, "tool_started")
        front[part].take_down()
        late = await harness.start(script=steps([bash(PRODUCT)]))
        await release_command(harness, held)
        await asyncio.sleep(seconds)
        front[part].is_down = False
        back, builds = monotonic(), (held, works, late)
        seq = {each: (await harness.row(each)).last_event_id for each in builds}

        async def all_go_on() -> bool:
            return all([(await harness.row(each)).last_event_id > seq[each] for each in builds])

        await wait_until(all_go_on, look_seconds=0.5)
        after = monotonic() - back
        await _assert_all_are_ready(harness, builds)
    assert after <= seconds + 60
    figure(f"{len(builds)} builds went on {after:.0f} s after {seconds:.0f} s without it, no one asked")


async def test_the_database_is_away_for_longer_than_attempts_last(figure: Figure) -> None:
    """Six minutes without the database while tool calls are in flight."""
    await _without("postgres", _DATABASE_SECONDS, figure)


async def test_temporal_is_away(figure: Figure) -> None:
    """Five minutes without Temporal."""
    await _without("temporal", _TEMPORAL_SECONDS, figure)
