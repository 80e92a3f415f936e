"""Outages of every server: builds wait by themselves, and go on by themselves."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from time import monotonic

import pytest
from sqlalchemy import update
from temporalio.testing import TimeSkipper

from clients.browser import Browser
from db.models import Build, DependencyState
from db.transaction import transaction
from db.users import UserChange, change_user
from domain.outage import FIRST_RAMP, LONGEST_WAIT
from domain.status import CLOSED, Dependency, Status
from local.stack import LocalStack, PartName
from tests.harness.away import Away, away_harness
from tests.harness.fault_waits import close_preview
from tests.harness.faults import fault_harness
from tests.harness.phases import count_phases
from tests.harness.scripts import HOLD, PRODUCT, SMALL, bash, hold, steps
from tests.harness.wait import DEADLINE, wait_until
from tests.harness.worker import FOUR_TURNS_A_DAY, WorkerHarness, poor_founder, worker_harness
from tests.workflows.scenarios import release_command, releasing_checks

Figure = Callable[[str], None]

OUTAGE = timedelta(hours=2)

_DATABASE_SECONDS = 385.0
"""The outage after which builds waited for a person for ever."""

_TEMPORAL_SECONDS = 300.0

_LONGEST = 4 * DEADLINE

_SETTLED = frozenset({Status.WAITING, Status.QUEUED, *CLOSED})

_ROUNDS = 5
"""Builds of each kind; there are six kinds."""

_HELD_CHECK = PRODUCT.replace('"check": "python3', f'"check": "{HOLD}; python3')
_ECHOES = [[bash(f"echo {number} >> log")] for number in range(6)]
_SLOW_ANSWER = {"kind": "stall", "seconds": 20}


@dataclass
class Fleet:
    """Builds in every phase."""

    harness: WorkerHarness
    in_command: list[uuid.UUID] = field(default_factory=list)
    at_gate: list[uuid.UUID] = field(default_factory=list)
    queued: list[uuid.UUID] = field(default_factory=list)
    asleep: list[uuid.UUID] = field(default_factory=list)
    in_turns: list[uuid.UUID] = field(default_factory=list)
    """Half of them wait for the model, the others take one turn after the other."""
    begun: list[uuid.UUID] = field(default_factory=list)
    """They begin in the outage."""

    @property
    def builds(self) -> list[uuid.UUID]:
        """All of them."""
        return [*self.in_command, *self.at_gate, *self.queued, *self.asleep, *self.in_turns, *self.begun]

    async def start(self, rounds: int = _ROUNDS) -> None:
        """Start all but those that begin in the outage, and wait until each has come to its phase."""
        harness, sleepers = self.harness, [await poor_founder(self.harness, FOUR_TURNS_A_DAY) for _ in range(rounds)]
        for user_id, _ in sleepers:
            self.asleep.append(await harness.start(user_id, script=steps(*_ECHOES[:3], [bash(PRODUCT)])))
        for _ in range(rounds):
            owner = await harness.founder(await harness.plan(None, concurrent_builds=1))
            self.in_command.append(await harness.start(owner, script=steps([hold("echo held")], [bash(PRODUCT)])))
            self.queued.append(await harness.start(owner, script=SMALL))
            self.at_gate.append(await harness.start(script=steps([bash(_HELD_CHECK)])))
        for build_id in self.in_command:
            await harness.until_event(build_id, "tool_started")
        for build_id in self.at_gate:
            await harness.until_event(build_id, "gate_step", count=3)
        for build_id in self.asleep:
            row = await harness.until(build_id, frozenset({Status.SLEEPING}))
            assert row.status == Status.SLEEPING, row.reason
        for number in range(rounds):
            slow = number % 2 == 0
            script = SMALL if slow else steps(*_ECHOES, [bash(PRODUCT)])
            self.in_turns.append(await harness.start(script=script, faults=[_SLOW_ANSWER] if slow else []))
        for build_id in self.in_turns:
            await harness.until_event(build_id, "turn_started")

    async def begin(self, rounds: int = _ROUNDS) -> None:
        """Start the builds that begin in the outage."""
        self.begun += [await self.harness.start(script=SMALL) for _ in range(rounds)]

    async def release(self) -> None:
        """Let the held commands end."""
        for build_id in self.in_command:
            await release_command(self.harness, build_id)

    async def wake_sleepers(self) -> None:
        """Give the sleepers money, and wake them."""
        for build_id in self.asleep:
            async with transaction(self.harness.sessions) as tx:
                user_id = (await tx.session.get_one(Build, build_id)).user_id
                await change_user(tx, user_id, UserChange(plan="cto_scale"), datetime.now(UTC).date())
            await self.harness.builds.wake(build_id)

    async def assert_all_are_ready(self) -> None:
        """Wait until each is ready, check that no person was asked, and close its preview."""
        for build_id in self.builds:
            async with releasing_checks(self.harness, self.at_gate):
                row = await self.harness.finished(build_id, _LONGEST)
            assert row.status == Status.READY, row.reason
            assert Status.NEEDS_INPUT not in await self.harness.statuses(build_id), "a person was asked"
            await close_preview(self.harness, build_id)


async def _make_due(away: Away) -> None:
    async with transaction(away.harness.sessions) as tx:
        due = update(DependencyState).values(next_probe_at=datetime.now(UTC))
        await tx.session.execute(due.where(DependencyState.state == "down"))


async def _probe_through_outage(away: Away, dependency: Dependency) -> list[int]:
    """Run the prober whenever it is time in an outage of two hours; returns the seconds after each probe.

    Its time is skipped: the next probe is made due at once.
    """
    waits: list[int] = []
    while sum(waits) < OUTAGE.total_seconds():
        await _make_due(away)
        await away.probe()
        async with transaction(away.harness.sessions) as tx:
            row = await tx.session.get_one(DependencyState, dependency)
        assert row.state == "down"
        assert row.next_probe_at is not None
        waits.append(round((row.next_probe_at - datetime.now(UTC)).total_seconds() / 15) * 15)
    return waits


async def _go_on(away: Away, builds: Sequence[uuid.UUID]) -> None:
    """Run the prober until no build waits any more. It probes at once, which saves the time between its runs."""

    async def have_gone_on() -> bool:
        await _make_due(away)
        await away.probe()
        return all([(await away.harness.row(each)).status != Status.WAITING for each in builds])

    await wait_until(have_gone_on, seconds=_LONGEST, look_seconds=0.5)


async def _most_starts_a_second(away: Away, builds: Sequence[uuid.UUID], since: datetime) -> int:
    """The most builds that went on in one second after a wait, since a moment."""
    seconds: Counter[int] = Counter()
    for build_id in builds:
        events = await away.harness.events(build_id, "status")
        for before, after in pairwise(events):
            if before.data["status"] == Status.WAITING and after.created_at >= since:
                seconds[int(after.created_at.timestamp())] += 1
    return max(seconds.values(), default=0)


async def _two_hours_without(away: Away, dependency: Dependency, fleet: Fleet, figure: Figure) -> datetime:
    """Take the dependency away for two hours in which builds begin, work, wake and end; returns when it came back."""
    harness = away.harness
    away.take(dependency)
    figure(f"{dependency} away with {await count_phases(harness, fleet.builds)}")
    await fleet.begin()
    await fleet.wake_sleepers()
    if dependency is not Dependency.SANDBOX:
        await fleet.release()

    async def are_settled() -> bool:
        return all([(await harness.row(each)).status in _SETTLED for each in fleet.builds])

    async with releasing_checks(harness, fleet.at_gate):
        await wait_until(are_settled, seconds=_LONGEST, look_seconds=0.5)
    probes = await _probe_through_outage(away, dependency)
    assert probes[-1] == max(probes) == LONGEST_WAIT.total_seconds()
    waiting = [each for each in fleet.builds if (await harness.row(each)).status == Status.WAITING]
    skipper = TimeSkipper(harness.client)
    await asyncio.gather(*(skipper.fast_forward(harness.handle(each), OUTAGE) for each in waiting))
    assert all([(await harness.row(each)).status == Status.WAITING for each in waiting])
    figure(f"{len(waiting)} waited, probed {len(probes)} times, at last every {probes[-1]} s")
    back = datetime.now(UTC)
    away.give_back(dependency)
    async with releasing_checks(harness, fleet.at_gate):
        await _go_on(away, fleet.builds)
    if dependency is Dependency.SANDBOX:
        await fleet.release()
    return back


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("dependency", [Dependency.STORE, Dependency.SANDBOX, Dependency.MODEL])
async def test_two_hours_without_a_dependency(
    large_stack: LocalStack, browser: Browser, figure: Figure, dependency: Dependency
) -> None:
    """Two simulated hours without a dependency, with 30 builds in every phase."""
    async with worker_harness(large_stack, browser) as harness, away_harness(harness) as away:
        fleet = Fleet(away.harness)
        await fleet.start()
        back = await _two_hours_without(away, dependency, fleet, figure)
        await fleet.assert_all_are_ready()
        starts = await _most_starts_a_second(away, fleet.builds, back)
    assert starts <= 2 * FIRST_RAMP
    figure(f"all {len(fleet.builds)} ready, no one asked, at most {starts} starts a second")


async def _without(part: PartName, seconds: float, rounds: int, figure: Figure) -> None:
    """Take a server away from a worker for real seconds, with builds in every phase."""
    async with fault_harness() as faults:
        front, harness = await faults.front(), faults.harness()
        await faults.worker(harness, front)
        fleet = Fleet(harness)
        await fleet.start(rounds)
        front[part].take_down()
        phases = await count_phases(harness, fleet.builds)
        figure(f"away with {phases}")
        await fleet.begin(rounds)
        await fleet.wake_sleepers()
        await fleet.release()
        async with releasing_checks(harness, fleet.at_gate):
            await asyncio.sleep(seconds)
        front[part].is_down = False
        back = monotonic()
        rows = [await harness.row(each) for each in fleet.builds]
        seq = {row.id: row.last_event_id for row in rows if row.closed_at is None}

        async def all_go_on() -> bool:
            return all([(await harness.row(each)).last_event_id > seq[each] for each in seq])

        async with releasing_checks(harness, fleet.at_gate):
            await wait_until(all_go_on, seconds=_LONGEST, look_seconds=0.5)
        after = monotonic() - back
        await fleet.assert_all_are_ready()
    assert after <= seconds + 60
    figure(f"all {len(fleet.builds)} had gone on {after:.0f} s after {seconds:.0f} s, all ready, no one asked")


@pytest.mark.timeout(2400)
async def test_the_database_is_away_for_longer_than_attempts_last(figure: Figure) -> None:
    """D5: six minutes without the database while tool calls are in flight."""
    await _without("postgres", _DATABASE_SECONDS, 2, figure)


@pytest.mark.timeout(2400)
async def test_temporal_is_away(figure: Figure) -> None:
    """Five minutes without Temporal, with 30 builds in every phase."""
    await _without("temporal", _TEMPORAL_SECONDS, _ROUNDS, figure)
