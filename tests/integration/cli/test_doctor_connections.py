"""`cofounder doctor` adds up the connections that all processes may open."""

import uuid

from checks.check import CheckContext
from checks.connections import check_connections
from db.formats import ThisProcess, announce
from db.session import open_sessions
from db.transaction import transaction
from local.stack import LocalStack
from tests.harness.api_server import new_database
from tests.harness.worker import settings_of


async def test_more_connections_than_the_server_gives(stack: LocalStack) -> None:
    url = await new_database(stack)
    context = CheckContext(settings_of(stack, database_url=url), None)
    assert (await check_connections(context)).state == "ok"
    async with open_sessions(url, pool_size=1) as sessions, transaction(sessions) as tx:
        for _ in range(5):
            await announce(tx, ThisProcess(uuid.uuid4(), "worker", "0.1.0", 42))
    result = await check_connections(context)
    assert result.state == "fail"
    assert "5 processes may open 210 connections" in result.detail
    assert "DATABASE_CONNECTIONS" in (result.remedy or "")
