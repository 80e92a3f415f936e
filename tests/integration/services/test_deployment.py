"""A database is bound to one Temporal namespace, and no process works on it with another."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from temporalio.service import RPCError, RPCStatusCode

from api.main import check_servers
from clients.browser import Browser
from clients.build_workflows import BuildToStart, BuildWorkflows
from clients.temporal import connect_temporal
from db.builds import BuildRequest, insert_build
from db.deployment import read_binding
from db.projects import create_project
from db.session import Sessions, open_sessions
from db.transaction import transaction
from db.users import ensure_user
from domain.errors import Misconfigured, WrongNamespace
from domain.names import build_workflow_id
from domain.verdicts import WorkflowFate
from local.postgres import api_database_url
from local.stack import LocalStack
from services.builds import start_build
from services.deployment import check_deployment, rebind
from tests.harness.api_server import new_database, settings_for
from tests.harness.namespaces import new_namespace
from worker import wired_worker


@pytest.fixture
async def database_url(stack: LocalStack) -> str:
    """An empty database that is not bound."""
    return await new_database(stack)


@pytest.fixture
async def sessions(database_url: str) -> AsyncIterator[Sessions]:
    async with open_sessions(database_url) as opened:
        yield opened


async def workflows_in(stack: LocalStack, namespace: str = "default") -> BuildWorkflows:
    environment = {**stack.environment, "TEMPORAL_NAMESPACE": namespace}
    return BuildWorkflows(await connect_temporal(environment), "a-queue-without-workers")


async def a_build(sessions: Sessions, *, is_started: bool) -> BuildToStart:
    """Insert an open build, with or without a note that its workflow was started."""
    async with transaction(sessions) as tx:
        user_id = f"founder-{uuid.uuid4()}"
        await ensure_user(tx, user_id)
        project = await create_project(tx, user_id, "Test", {"name": "Test"}, None)
        build = await insert_build(tx, BuildRequest(project.id, user_id, "Test it."))
        assert build is not None
        build.started_at = datetime.now(UTC) if is_started else None
        return BuildToStart(build.id, user_id, project.id, "bootstrapper")


async def test_an_empty_database_binds_and_then_refuses_others(stack: LocalStack, sessions: Sessions) -> None:
    here, there = await workflows_in(stack), await workflows_in(stack, await new_namespace(stack))
    await check_deployment(sessions, there)
    await check_deployment(sessions, here)  # no build is anywhere, so a mistake may be corrected
    await a_build(sessions, is_started=False)
    with pytest.raises(WrongNamespace, match="belongs to Temporal's namespace default at"):
        await check_deployment(sessions, there)
    await check_deployment(sessions, here)
    assert await rebind(sessions, await there.namespace()) is not None
    await check_deployment(sessions, there)
    with pytest.raises(WrongNamespace):
        await check_deployment(sessions, here)


async def test_a_database_with_open_builds_binds_only_where_one_is_found(stack: LocalStack, sessions: Sessions) -> None:
    here, there = await workflows_in(stack), await workflows_in(stack, await new_namespace(stack))
    builds = [await a_build(sessions, is_started=True) for _ in range(2)]
    await here.start(builds[0])
    with pytest.raises(WrongNamespace, match="no workflow of any of the 2 open builds in the database"):
        await check_deployment(sessions, there)
    async with transaction(sessions) as tx:
        assert await read_binding(tx) is None
    await check_deployment(sessions, here)
    async with transaction(sessions) as tx:
        bound = await read_binding(tx)
    assert bound is not None
    assert bound.is_to(await here.namespace())
    client = await connect_temporal(stack.environment)
    await client.get_workflow_handle(build_workflow_id(builds[0].build_id)).terminate()


async def test_neither_a_worker_nor_the_api_starts_on_a_wrong_namespace(
    stack: LocalStack, browser: Browser, database_url: str, sessions: Sessions
) -> None:
    await a_build(sessions, is_started=True)
    await rebind(sessions, await (await workflows_in(stack)).namespace())
    environment = {**stack.environment, "TEMPORAL_NAMESPACE": await new_namespace(stack)}
    settings = settings_for(database_url, stack.environment)
    client = await connect_temporal(environment)
    with pytest.raises(WrongNamespace):
        async with wired_worker(settings, client, browser):
            pass
    settings = settings.model_copy(update={"database_url": api_database_url(database_url)})
    with pytest.raises(WrongNamespace):
        await check_servers(settings, environment)
    nowhere = {**stack.environment, "TEMPORAL_ADDRESS": "127.0.0.1:1"}
    await check_servers(settings, nowhere)  # the API starts before its servers


async def test_no_build_is_started_in_a_wrong_namespace(stack: LocalStack, sessions: Sessions) -> None:
    """The API may have started while its servers were away, so that it could not be refused then."""
    await rebind(sessions, await (await workflows_in(stack)).namespace())
    there = await workflows_in(stack, await new_namespace(stack))
    user_id = f"founder-{uuid.uuid4()}"
    async with transaction(sessions) as tx:
        await ensure_user(tx, user_id)
        project = await create_project(tx, user_id, "Test", {"name": "Test"}, None)
    request = BuildRequest(project.id, user_id, "Test it.")
    started = await start_build(sessions, there, request, autonomous_agent=True)
    async with transaction(sessions) as tx:
        build = await insert_build(tx, request)
        assert build is None, "the accepted build is kept, for the reaper of the right namespace"
    assert await there.fate(build_workflow_id(started.build_id)) is WorkflowFate.UNKNOWN


async def test_a_connection_that_is_closed_just_then_does_not_make_temporal_silent(
    stack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server closes connections after some minutes; the SDK cancels a call that it was about to send on one."""
    here = await workflows_in(stack)
    client = here._client
    describe, statuses = client.workflow_service.describe_namespace, [RPCStatusCode.CANCELLED]

    async def closed_first(*arguments: Any, **options: Any) -> Any:
        if statuses:
            raise RPCError("operation was canceled", statuses.pop(), b"")
        return await describe(*arguments, **options)

    monkeypatch.setattr(client.workflow_service, "describe_namespace", closed_first)
    assert (await here.namespace()).id is not None
    statuses.extend([RPCStatusCode.UNAVAILABLE])
    with pytest.raises(Misconfigured, match="Temporal does not answer"):
        await here.namespace()
