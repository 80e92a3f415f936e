"""A migration of a database that programs use."""

import asyncio
import uuid
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from db import migrate as module
from db.access import find_role
from db.builds import BuildFilter, list_builds
from db.formats import own_formats
from db.migrate import migrate
from db.models import Build
from db.projects import list_projects
from db.session import make_engine, make_sessions
from db.transaction import transaction
from domain.formats import SCHEMA
from domain.identity import Role
from local.stack import LocalStack
from tests.harness.api_server import new_database
from tests.harness.build_rows import builds_of
from tests.harness.wait import wait_until
from tests.harness.worker import WorkerHarness

_WAITING = "select count(*) from pg_locks where not granted and relation = 'prompts'::regclass"


def _downgrade(connection: Connection, revision: str = "0019") -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(module.__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.downgrade(config, revision)


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


_PROJECT = "insert into projects (id, user_id, name) values ($1, $2, 'Test')"
_BUILD = "insert into builds (id, project_id, user_id, goal, body_hash) values ($1, $2, $3, 'Test it.', '')"
"""As a version without organisations inserts them."""

_MEMBERS = "select user_id, role, personal_of from memberships join organisations on organisations.id = org_id"


async def _insert_projects(connection: asyncpg.Connection, users: Sequence[str]) -> dict[uuid.UUID, str]:
    """Insert users with a project and a build each; returns the user of each project."""
    users_of = {uuid.uuid4(): user for user in users}
    for project, user in users_of.items():
        await connection.execute("insert into users (id) values ($1) on conflict do nothing", user)
        await connection.execute(_PROJECT, project, user)
        await connection.execute(_BUILD, uuid.uuid4(), project, user)
    return users_of


async def test_an_upgrade_keeps_each_project_with_its_owner(stack: LocalStack) -> None:
    url = await new_database(stack)
    engine = make_engine(url, limited=False)
    async with engine.begin() as connection:
        await connection.run_sync(_downgrade, "0027")
    older = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        users_of = await _insert_projects(older, ["ada", "bob", "ada", "o'neil"])
        await migrate(url)
        users_of |= await _insert_projects(older, ["bob", "new", "new"])  # a program that goes on beside the new schema
        members = await older.fetch(
            "select user_id, role, personal_of from memberships join organisations on id = org_id"
        )
    finally:
        await older.close()
    assert sorted(map(tuple, members)) == [(user, "owner", user) for user in ("ada", "bob", "new", "o'neil")]
    async with transaction(make_sessions(engine)) as tx:
        for user in ("ada", "bob", "new", "o'neil"):
            listed = await list_projects(tx, user, None, None, 10)
            assert {each.project.id for each in listed} == {each for each, owner in users_of.items() if owner == user}
            builds = await list_builds(tx, user, BuildFilter(), None, 10)
            assert {each.build.project_id for each in builds} == {each.project.id for each in listed}
            assert {await find_role(tx, user, each.project.id) for each in listed} == {Role.OWNER}
    await engine.dispose()


async def test_large_tables_are_vacuumed_by_a_small_share_of_their_rows(harness: WorkerHarness) -> None:
    query = text("select relname, reloptions from pg_class where relname in ('events', 'tool_calls', 'builds')")
    async with harness.session() as tx:
        options = {name: set(found) for name, found in await tx.session.execute(query)}
    assert {name for name, found in options.items() if "autovacuum_vacuum_scale_factor=0.02" in found} == options.keys()
    assert "fillfactor=80" in options["builds"]
