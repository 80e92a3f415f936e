"""Probes the dependencies that are down, and tells the builds that wait for one that answers again to go on."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime

import structlog
from temporalio import activity
from temporalio.service import RPCError

from activities.runtime.errors import application_errors
from activities.runtime.heartbeat import heartbeating
from clients.build_workflows import BuildWorkflows
from db import dependencies
from db.models import DependencyState
from db.session import Sessions
from db.transaction import transaction
from domain.errors import CofounderError, NeedsPerson, NotFound
from domain.outage import HALF_OPEN_FOR, PROBER_IS_LATE, builds_a_second
from domain.payloads import DependencyReading, DependencyRef, OutageReport, ProbeResult
from domain.status import Dependency
from domain.text import storable

Probe = Callable[[], Awaitable[None]]
"""Asks a dependency for something cheap. Raises what its client raises if it does not answer."""

_PROBE_SECONDS = 8.0
"""A probe that takes longer has failed."""

_SIGNAL_SECONDS = 10.0
"""Tell builds to go on for this long in a run; the next run goes on."""

_log = structlog.get_logger(__name__)


class ProberActivities:
    """`probe`, run by a Temporal Schedule, and what builds report to it and ask it."""

    def __init__(self, sessions: Sessions, builds: BuildWorkflows, probes: Mapping[Dependency, Probe]) -> None:
        self._sessions = sessions
        self._builds = builds
        self._probes = probes

    @activity.defn
    @application_errors
    async def report_outage(self, request: OutageReport) -> DependencyReading:
        """Mark a dependency as down; returns what was known of it before."""
        now = datetime.now(UTC)
        async with transaction(self._sessions) as tx:
            before = _reading(await dependencies.find_dependency(tx, request.dependency), now)
            await dependencies.report_down(tx, request.dependency, storable(request.detail), now)
        return before

    @activity.defn
    @application_errors
    async def read_dependency(self, request: DependencyRef) -> DependencyReading:
        """What is known of a dependency now."""
        async with transaction(self._sessions) as tx:
            return _reading(await dependencies.find_dependency(tx, request.dependency), datetime.now(UTC))

    @activity.defn
    @application_errors
    async def probe(self) -> ProbeResult:
        """Probe what is down, if it is time; tell builds that wait for what answers to go on, a few at a time."""
        async with heartbeating():
            async with transaction(self._sessions) as tx:
                rows = await dependencies.dependencies_not_up(tx)
            results = [await self._look_after(row) for row in rows]
            return ProbeResult(
                probed=sum(each.probed for each in results),
                answered=sum(each.answered for each in results),
                signalled=sum(each.signalled for each in results),
            )

    async def _look_after(self, row: DependencyState) -> ProbeResult:
        name, now = Dependency(row.name), datetime.now(UTC)
        if row.state == "down" and (row.next_probe_at is None or row.next_probe_at > now):
            return ProbeResult()
        if row.state == "half_open" and now - row.since >= HALF_OPEN_FOR:
            async with transaction(self._sessions) as tx:
                await dependencies.mark_up(tx, name, now)
            return ProbeResult()
        error = await self._ask(name)
        async with transaction(self._sessions) as tx:
            await dependencies.record_probe(tx, name, error, datetime.now(UTC))
        if error is not None:
            return ProbeResult(probed=1)
        return ProbeResult(probed=1, answered=1, signalled=await self._tell_builds(name))

    async def _ask(self, name: Dependency) -> str | None:
        """Probe a dependency; returns the error, or None if it has answered."""
        probe = self._probes.get(name)
        if probe is None:
            return None
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await probe()
        except NeedsPerson:
            return None  # it answers, and the builds that try again ask for the person
        except (CofounderError, OSError, TimeoutError) as error:
            return storable(str(error) or type(error).__name__, 500)
        return None

    async def _tell_builds(self, name: Dependency) -> int:
        """Tell waiting builds to go on, at a rate that doubles with each run. Ends if the dependency fails again."""
        told, ends_at = 0, asyncio.get_running_loop().time() + _SIGNAL_SECONDS
        seen: set[object] = set()
        while asyncio.get_running_loop().time() < ends_at:
            async with transaction(self._sessions) as tx:
                row = await dependencies.find_dependency(tx, name)
                if row is None or row.state != "half_open":
                    break
                rate = builds_a_second(datetime.now(UTC) - row.since)
                waiting = await dependencies.builds_waiting_for(tx, name, rate + len(seen))
            chosen = [build_id for build_id in waiting if build_id not in seen][:rate]
            if not chosen:
                break
            for build_id in chosen:
                with suppress(NotFound, RPCError):  # its own timer wakes it, too
                    await self._builds.signal_recovered(build_id)
                    told += 1
            seen.update(chosen)
            await asyncio.sleep(1)
        if told:
            _log.info("told builds that a dependency answers again", dependency=name, builds=told)
        return told


def _reading(row: DependencyState | None, now: datetime) -> DependencyReading:
    if row is None or row.state != "down":
        return DependencyReading(is_up=True)
    is_probed = row.next_probe_at is not None and now < row.next_probe_at + PROBER_IS_LATE
    return DependencyReading(is_down=is_probed)
