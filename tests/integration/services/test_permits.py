"""Permits follow what runs: after crashes, refusals of the service, and sandboxes that an older worker has started."""

import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import select

from clients.sandbox import Role, Sandboxes, sandbox_config
from db.models import Build, Permit
from db.session import Sessions, make_engine, make_sessions
from db.transaction import transaction
from domain.errors import NoPermit, SandboxRefused
from local.stack import LocalStack
from services.permits import Permits
from tests.harness.api_server import new_database
from tests.harness.build_rows import builds_of
from tests.harness.worker import settings_of

_ANY_AGE = timedelta(seconds=-60)


@pytest.fixture
async def sessions(stack: LocalStack) -> AsyncIterator[Sessions]:
    """A database of its own: permits are counted over all builds."""
    engine = make_engine(await new_database(stack))
    yield make_sessions(engine)
    await engine.dispose()


async def holders(sessions: Sessions) -> set[uuid.UUID]:
    async with transaction(sessions) as tx:
        return set(await tx.session.scalars(select(Permit.build_id).where(Permit.held_since.is_not(None))))


async def test_permits_follow_what_runs(stack: LocalStack, sessions: Sessions) -> None:
    sandboxes = Sandboxes(sandbox_config(settings_of(stack)))
    permits = Permits(sessions, None, quota=2)
    uncounted, crashed, works = await builds_of(sessions, "a", 3)
    async with transaction(sessions) as tx:
        (await tx.session.get_one(Build, crashed)).status = "sleeping"
        (await tx.session.get_one(Build, works)).status = "code"
    await permits.take(str(crashed), Role.WORKSPACE)
    await permits.take(str(works), Role.WORKSPACE)
    sandbox = await sandboxes.create(str(uncounted), Role.WORKSPACE)
    try:
        assert await permits.restore_order(sandboxes, timedelta(hours=1)) == 0, "what is young may be starting"
        assert await permits.restore_order(sandboxes, _ANY_AGE) == 2
        assert await holders(sessions) == {uncounted, works}
        assert await permits.restore_order(sandboxes, _ANY_AGE) == 0
        with pytest.raises(NoPermit, match="and is next"):
            await permits.take(str(crashed), Role.WORKSPACE)
    finally:
        await sandboxes.kill(sandbox.id)
        await sandboxes.close()


async def test_the_sandbox_of_a_push_has_no_permit_of_its_build(stack: LocalStack, sessions: Sessions) -> None:
    sandboxes = Sandboxes(sandbox_config(settings_of(stack)))
    permits = Permits(sessions, None)
    [pushed] = await builds_of(sessions, "a", 1)
    sandbox = await sandboxes.create(str(pushed), Role.PUSH, offline=True)
    try:
        assert await permits.restore_order(sandboxes, _ANY_AGE) == 0
        assert await holders(sessions) == set()
    finally:
        await sandboxes.kill(sandbox.id)
        await sandboxes.close()


async def test_a_refused_sandbox_gives_its_permit_back(sessions: Sessions) -> None:
    permits = Permits(sessions, None)
    [build_id] = await builds_of(sessions, "a", 1)

    async def start() -> None:
        async with permits.running(str(build_id), Role.WORKSPACE):
            assert await holders(sessions) == {build_id}
            raise SandboxRefused("no room")

    with pytest.raises(SandboxRefused, match="no room"):
        await start()
    assert await holders(sessions) == set()
    with pytest.raises(SandboxRefused, match="has no room"):
        await permits.take(str(build_id), Role.WORKSPACE)
