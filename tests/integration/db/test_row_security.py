"""Row-level security: what the API's role sees and may do, whatever the queries ask for."""

import uuid
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db.api_role import PRIVILEGES
from db.errors import sqlstate
from db.migrate import migrate
from db.models import Base
from db.projects import create_project
from db.session import Access, Sessions, open_sessions
from db.transaction import transaction
from db.users import ensure_user
from local.postgres import api_database_url
from local.stack import LocalStack
from tests.harness.api_server import new_database

FOR_ALL = {
    "plan_tiers": "what plans include",
    "fleet_days": "sums over all users",
    "limits": "limits of the whole service",
    "switches": "switched off by operators",
    "request_buckets": "numbers of requests",
    "dependencies": "servers that builds wait for",
    "model_buckets": "what models have left",
    "sandbox_fleet": "a count of sandboxes",
    "deployment": "the namespace that the database is bound to",
    "formats": "versions of stored formats",
    "processes": "programs that run",
    "reaper_steps": "where the reaper is",
    "doomed_objects": "names of objects to delete; the API has no privilege on it",
}
"""Tables without founders' rows, and what they hold."""

_FORBIDDEN = "42501"


@pytest.fixture(scope="module")
async def database_url(stack: LocalStack) -> str:
    return await new_database(stack)


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[Sessions]:
    async with open_sessions(database_url, pool_size=2) as sessions:
        yield sessions


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[Sessions]:
    async with open_sessions(api_database_url(database_url), pool_size=2) as sessions:
        yield sessions


async def _project_of(owner: Sessions, user_id: str) -> uuid.UUID:
    async with transaction(owner) as tx:
        await ensure_user(tx, user_id)
        return (await create_project(tx, user_id, "theirs", {"name": "theirs"}, None)).id


async def _names(sessions: Sessions, statement: str) -> list[object]:
    async with transaction(sessions) as tx:
        return [row[0] for row in await tx.execute(text(statement), {})]


async def test_every_table_has_row_level_security_or_a_reason(owner: Sessions) -> None:
    secured = await _names(
        owner,
        "select relname::text from pg_class where relrowsecurity and relforcerowsecurity "
        "and relnamespace = 'public'::regnamespace",
    )
    assert set(secured).isdisjoint(FOR_ALL)
    assert {*secured, *FOR_ALL} == set(Base.metadata.tables)


async def test_the_role_has_just_its_privileges(owner: Sessions, database_url: str) -> None:
    granted = (
        "select relname || ' ' || privilege_type from pg_class, aclexplode(relacl) "
        "where grantee = 'cofounder_api'::regrole"
    )
    wanted = {f"{table} {privilege}" for table, privileges in PRIVILEGES.items() for privilege in privileges}
    assert set(await _names(owner, granted)) == wanted
    async with transaction(owner) as tx:
        await tx.execute(text("grant delete on audit to cofounder_api"), {})
        await tx.execute(text("revoke select on events from cofounder_api"), {})
    assert not (await migrate(database_url)).statements
    assert set(await _names(owner, granted)) == wanted


@pytest.mark.parametrize(
    "statement",
    [
        "delete from audit",
        "update audit set actor = 'someone else'",
        "truncate audit",
        "update ledger set cost = 0",
        "delete from events",
        "update plan_tiers set cycle_budget = null",
        "create table public.mine (id int)",
        "alter table projects no force row level security",
        "drop policy projects_select on projects",
        "set role cofounder",
        "select rolpassword from pg_authid",
        "select count(*) from doomed_objects",
    ],
)
async def test_the_role_may_not(api: Sessions, statement: str) -> None:
    with pytest.raises(DBAPIError) as refusal:
        async with transaction(api.acting(Access.everything())) as tx:
            await tx.execute(text(statement), {})
    assert sqlstate(refusal.value) == _FORBIDDEN


async def test_a_transaction_sees_the_rows_of_its_user_only(owner: Sessions, api: Sessions) -> None:
    ada, bob = f"ada-{uuid.uuid4()}", f"bob-{uuid.uuid4()}"
    of_ada, of_bob = await _project_of(owner, ada), await _project_of(owner, bob)
    every = "select id from projects"
    assert set(await _names(api.acting(Access(ada)), every)) == {of_ada}
    assert set(await _names(api.acting(Access(bob)), every)) == {of_bob}
    assert {of_ada, of_bob} <= set(await _names(api.acting(Access.everything()), every))
    assert await _names(api, every) == [], "a transaction that says nothing sees nothing"
    assert {of_ada, of_bob} <= set(await _names(owner, every))
    assert await _names(api, every) == [], "what a transaction set is gone with it"
    other = f"update projects set name = 'mine' where id = '{of_bob}' returning id"
    assert await _names(api.acting(Access(ada)), other) == []


async def test_a_viewer_reads_and_changes_nothing(owner: Sessions, api: Sessions) -> None:
    ada, eve = f"ada-{uuid.uuid4()}", f"eve-{uuid.uuid4()}"
    project = await _project_of(owner, ada)
    await _project_of(owner, eve)
    async with transaction(owner) as tx:
        add = (
            "insert into memberships (org_id, user_id, role) "
            "select org_id, :user, 'viewer' from projects where id = :project"
        )
        await tx.session.execute(text(add), {"user": eve, "project": project})
    viewer = api.acting(Access(eve))
    assert project in await _names(viewer, "select id from projects")
    assert await _names(viewer, f"select project_id from artifacts where project_id = '{project}'") == [project]
    assert await _names(viewer, f"select id from projects where id = '{project}' for update") == [project]
    changes = [
        f"update projects set name = 'mine' where id = '{project}'",
        f"update artifacts set version = 9 where project_id = '{project}'",
        "insert into artifacts (id, project_id, type, body) "
        f"values (gen_random_uuid(), '{project}', 'other', '{{}}'::json)",
    ]
    for change in changes:
        with pytest.raises(DBAPIError) as refusal:
            await _names(viewer, change)
        assert sqlstate(refusal.value) == _FORBIDDEN
