"""The prober probes only what is down, and tells the builds that wait for it to go on."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import update
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from activities.prober import ProberActivities
from clients.build_workflows import BuildToStart, BuildWorkflows
from clients.object_store import ObjectStore
from clients.temporal import connect_temporal
from db.builds import BuildRequest, insert_build
from db.dependencies import count_waiting_builds
from db.models import Build, DependencyState
from db.projects import create_project
from db.session import Sessions, make_engine, make_sessions
from db.transaction import transaction
from db.users import ensure_user
from domain.names import build_workflow_id
from domain.outage import HALF_OPEN_FOR
from domain.payloads import DependencyReading, DependencyRef, OutageReport, ProbeResult
from domain.status import Dependency, Status
from local.stack import LocalStack
from tests.harness.activities import store_config
from tests.harness.api_server import new_database
from tests.harness.fault_proxy import FaultProxy

STORE = Dependency.STORE


@dataclass
class World:
    """A database of its own, a store behind a proxy, and builds whose workflows no worker takes."""

    sessions: Sessions
    client: Client
    builds: BuildWorkflows
    proxy: FaultProxy
    prober: ProberActivities

    async def run(self, activity: Any, *request: object) -> Any:
        """Run one attempt of an activity."""
        return await ActivityEnvironment().run(activity, *request)

    async def waiting_build(self) -> uuid.UUID:
        """Start a build that waits for the store, and return its id."""
        async with transaction(self.sessions) as tx:
            user_id = f"founder-{uuid.uuid4()}"
            await ensure_user(tx, user_id)
            project = await create_project(tx, user_id, "Test", None, None)
            build = await insert_build(tx, BuildRequest(project.id, user_id, "Test it."))
            assert build is not None
            build.status, build.dependency = Status.WAITING, STORE
        await self.builds.start(BuildToStart(build.id, user_id, project.id, "partner"))
        return build.id

    async def signals(self, build_id: uuid.UUID) -> int:
        """Count the signals that a build's workflow was sent."""
        history = await self.client.get_workflow_handle(build_workflow_id(build_id)).fetch_history()
        return sum(event.HasField("workflow_execution_signaled_event_attributes") for event in history.events)

    async def row(self) -> DependencyState:
        """Read the store's row."""
        async with transaction(self.sessions) as tx:
            return await tx.session.get_one(DependencyState, STORE)

    async def change_row(self, **values: object) -> None:
        """Change the store's row."""
        async with transaction(self.sessions) as tx:
            await tx.session.execute(update(DependencyState).values(**values))


@pytest.fixture
async def world(stack: LocalStack) -> AsyncIterator[World]:
    config = store_config(stack.environment)
    proxy = FaultProxy(urlsplit(str(config.endpoint_url)).port or 0)
    await proxy.start()
    engine = make_engine(await new_database(stack))
    client = await connect_temporal(stack.environment)
    builds = BuildWorkflows(client, f"no-worker-{uuid.uuid4()}")
    async with ObjectStore(replace(config, endpoint_url=f"http://127.0.0.1:{proxy.port}")) as store:
        sessions = make_sessions(engine)
        yield World(sessions, client, builds, proxy, ProberActivities(sessions, builds, {STORE: store.probe}))
    await engine.dispose()
    await proxy.close()


async def test_an_outage_from_its_report_to_its_end(world: World) -> None:
    assert await world.run(world.prober.probe) == ProbeResult(), "nothing is down"
    build_id = await world.waiting_build()
    report = OutageReport(dependency=STORE, detail="it does not answer \x00")
    assert await world.run(world.prober.report_outage, report) == DependencyReading(is_up=True)
    row = await world.row()
    assert (row.state, row.failures, row.detail) == ("down", 0, "it does not answer \ufffd")
    assert await world.run(world.prober.read_dependency, DependencyRef(dependency=STORE)) == DependencyReading(
        is_down=True
    )
    assert await world.run(world.prober.probe) == ProbeResult(), "it is not time yet"

    world.proxy.refuse(503)
    await world.change_row(next_probe_at=datetime.now(UTC))
    assert await world.run(world.prober.probe) == ProbeResult(probed=1)
    row = await world.row()
    assert (row.state, row.failures) == ("down", 1)
    assert row.next_probe_at is not None
    assert timedelta(seconds=20) < row.next_probe_at - datetime.now(UTC) <= timedelta(seconds=30)
    assert await world.signals(build_id) == 0

    world.proxy.heal()
    await world.change_row(next_probe_at=datetime.now(UTC))
    assert await world.run(world.prober.probe) == ProbeResult(probed=1, answered=1, signalled=1)
    assert (await world.row()).state == "half_open"
    assert await world.signals(build_id) == 1
    async with transaction(world.sessions) as tx:
        assert [(each.dependency, each.builds) for each in await count_waiting_builds(tx)] == [("store", 1)]

    await world.change_row(since=datetime.now(UTC) - HALF_OPEN_FOR)
    assert await world.run(world.prober.probe) == ProbeResult()
    row = await world.row()
    assert (row.state, row.failures, row.next_probe_at) == ("up", 0, None)
    await world.run(world.prober.probe)
    assert await world.signals(build_id) == 1, "builds are told for five minutes, then their own timers have to do"


async def test_builds_that_fail_again_close_it_and_it_is_probed_later_each_time(world: World) -> None:
    """A probe that is wrong must not make builds loop."""
    build_id, report, waits = await world.waiting_build(), OutageReport(dependency=STORE, detail="no"), []
    for _ in range(4):
        await world.run(world.prober.report_outage, report)
        row = await world.row()
        assert row.state == "down"
        assert row.next_probe_at is not None
        waits.append(round((row.next_probe_at - row.since).total_seconds()))
        await world.change_row(next_probe_at=datetime.now(UTC))
        await world.run(world.prober.probe)
    assert waits == [15, 30, 60, 120]
    assert await world.signals(build_id) == 4


async def test_without_a_prober_builds_trust_their_own_timers(world: World) -> None:
    await world.run(world.prober.report_outage, OutageReport(dependency=STORE, detail="no"))
    await world.change_row(next_probe_at=datetime.now(UTC) - timedelta(minutes=3))
    reading = await world.run(world.prober.read_dependency, DependencyRef(dependency=STORE))
    assert reading == DependencyReading()


async def test_a_build_that_has_gone_on_is_not_told(world: World) -> None:
    gone_on, waits = await world.waiting_build(), await world.waiting_build()
    async with transaction(world.sessions) as tx:
        row = await tx.session.get_one(Build, gone_on)
        row.status, row.dependency = Status.CODE, None
    await world.run(world.prober.report_outage, OutageReport(dependency=STORE, detail="no"))
    await world.change_row(next_probe_at=datetime.now(UTC))
    assert (await world.run(world.prober.probe)).signalled == 1
    assert (await world.signals(gone_on), await world.signals(waits)) == (0, 1)
