"""Programs refuse a database that they can't read, and a migration spares programs that run."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from db.formats import ThisProcess, announce, connection_use, own_formats
from db.migrate import migrate
from db.session import Sessions, open_sessions
from db.transaction import transaction
from domain.errors import WrongVersion
from domain.formats import SCHEMA
from local.stack import LocalStack
from services import presence
from services.presence import Presence, check_formats
from tests.harness.api_server import new_database

HEAD = own_formats()[SCHEMA]


@pytest.fixture
async def url(stack: LocalStack) -> str:
    return await new_database(stack)


@pytest.fixture
async def sessions(url: str) -> AsyncIterator[Sessions]:
    async with open_sessions(url, pool_size=2) as opened:
        yield opened


async def _run(sessions: Sessions, statement: str, **values: object) -> None:
    async with transaction(sessions) as tx:
        await tx.session.execute(text(statement), values)


async def _count(sessions: Sessions) -> int:
    async with transaction(sessions) as tx:
        return int(await tx.session.scalar(text("select count(*) from processes")) or 0)


async def test_a_fresh_database_is_readable(sessions: Sessions) -> None:
    await check_formats(sessions)


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ("update formats set written = 9, readable_from = 9 where name = 'conversation'", "version 9"),
        (f"update formats set written = {HEAD + 2}, readable_from = {HEAD + 1} where name = 'schema'", "too old"),
        (f"update formats set written = {HEAD - 1} where name = 'schema'", "cofounder migrate"),
        ("drop table formats", "cofounder migrate"),
    ],
)
async def test_a_program_refuses_what_it_cannot_read(sessions: Sessions, change: str, advice: str) -> None:
    await _run(sessions, change)
    with pytest.raises(WrongVersion, match=advice):
        await check_formats(sessions)


async def test_a_running_process_is_announced_and_stops(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "BEAT_SECONDS", 0.05)
    problems: list[WrongVersion] = []
    rounds: list[None] = []
    keeping = asyncio.create_task(Presence(sessions, "worker", 40).keep(problems.append, lambda: rounds.append(None)))
    while not await _count(sessions):
        await asyncio.sleep(0.01)
    await _run(sessions, "update formats set written = 9, readable_from = 9 where name = 'snapshot'")
    await keeping
    assert [type(problem) for problem in problems] == [WrongVersion]
    assert len(rounds) > 1
    assert await _count(sessions) == 0


async def test_the_connections_of_running_processes_are_added_up(sessions: Sessions) -> None:
    async with transaction(sessions) as tx:
        await announce(tx, ThisProcess(uuid.uuid4(), "worker", "0.1.0", 42))
        await announce(tx, ThisProcess(uuid.uuid4(), "api", "0.1.0", 22))
        await announce(tx, ThisProcess(uuid.uuid4(), "worker", "0.1.0", 42))
    await _run(sessions, "update processes set seen_at = now() - interval '3 minutes' where role = 'api'")
    async with transaction(sessions) as tx:
        use = await connection_use(tx)
    assert (use.processes, use.wanted) == (2, 84)
    assert 150 < use.given <= 200, "the embedded server's"


async def test_a_contract_migration_spares_older_processes(
    url: str, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is put back to before a migration that then counts as a contract."""
    await _run(sessions, "update alembic_version set version_num = :before", before=f"{HEAD - 1:04}")
    monkeypatch.setattr("db.migrate._contracts", lambda _: [(HEAD, f"{HEAD:04}")])
    ran: list[str] = []
    monkeypatch.setattr("alembic.command.upgrade", lambda _, revision: ran.append(revision))
    async with transaction(sessions) as tx:
        await announce(tx, ThisProcess(uuid.uuid4(), "worker", "0.0.9", 42))
    await _run(sessions, """update processes set reads = '{"schema": 3}'""")
    with pytest.raises(WrongVersion, match=r"1 worker of version 0\.0\.9"):
        await migrate(url)
    assert ran == []
    await _run(sessions, "update processes set seen_at = now() - interval '3 minutes'")
    await migrate(url)
    assert ran == ["head"]


async def test_an_older_program_leaves_a_newer_schema_alone(url: str, sessions: Sessions) -> None:
    await _run(sessions, "update alembic_version set version_num = '9999'")
    await _run(sessions, "update formats set written = 9999, readable_from = :needs where name = 'schema'", needs=HEAD)
    await migrate(url)
    await check_formats(sessions)
    await _run(sessions, "update formats set readable_from = 9999 where name = 'schema'")
    with pytest.raises(WrongVersion, match="too old"):
        await migrate(url)
