"""A migration of a database that programs use."""

import asyncio
import uuid
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from db import migrate as module
from db.formats import own_formats
from db.migrate import migrate
from db.models import Build
from db.session import make_engine
from db.transaction import transaction
from domain.formats import SCHEMA
from local.stack import LocalStack
from tests.harness.api_server import new_database
from tests.harness.build_rows import builds_of
from tests.harness.wait import wait_until
from tests.harness.worker import WorkerHarness

_WAITING = "select count(*) from pg_locks where not granted and relation = 'prompts'::regclass"


def _downgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(module.__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.downgrade(config, "0019")


async def test_an_older_program_ends_a_wait_that_it_does_not_know(harness: WorkerHarness) -> None:
    [build_id] = await builds_of(harness.sessions, f"founder-{uuid.uuid4()}", 1)
    async with transaction(harness.sessions) as tx:
        build = await tx.session.get_one(Build, build_id)
        build.status, build.dependency = "waiting", "store"
        await tx.session.flush()
        # As the version before does, to which waits and dependencies are unknown.
        await tx.session.execute(text("update builds set status = 'code' where id = :id"), {"id": build_id})
        await tx.session.refresh(build)
        assert build.dependency is None


async def test_a_migration_that_waits_for_a_lock_lets_others_through(
    stack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await new_database(stack)
    engine = make_engine(url, limited=False)
    async with engine.begin() as connection:
        await connection.run_sync(_downgrade)
    monkeypatch.setattr(module, "_LOCK_SECONDS", 0.2)
    plain = url.replace("+asyncpg", "")
    slow, other = await asyncpg.connect(plain), await asyncpg.connect(plain)
    try:
        transaction = slow.transaction()
        await transaction.start()
        await slow.execute("lock table prompts in row exclusive mode")  # as a statement of a long transaction
        migrating = asyncio.create_task(migrate(url))
        await wait_until(lambda: slow.fetchval(_WAITING))
        async with asyncio.timeout(30):
            await other.execute("update prompts set prefix = prefix where false")
        assert not migrating.done()
        await transaction.commit()
        await migrating
    finally:
        await slow.close()
        await other.close()
    async with engine.connect() as connection:
        version = await connection.scalar(text("select version_num from alembic_version"))
    await engine.dispose()
    assert int(str(version)) == own_formats()[SCHEMA]
