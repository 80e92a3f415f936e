"""Row-level security: what the API's role sees and may do, whatever the queries ask for."""

import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import DBAPIError

from db import api_role
from db.api_role import PRIVILEGES, make_api_role
from db.errors import sqlstate
from db.migrate import migrate
from db.models import Base
from db.organisations import delete_member, insert_organisation
from db.projects import create_project
from db.session import Access, Sessions, make_engine, open_sessions
from db.transaction import transaction
from db.users import ensure_user
from domain.api_role import scram_verifier
from domain.errors import NoRowSecurity
from local.postgres import api_database_url
from local.stack import LocalStack
from services.row_security import check_row_security
from tests.harness.api_server import new_database

FOR_ALL = {
    "plan_tiers": "what plans include",
    "fleet_days": "sums over all users",
    "limits": "limits of the whole service",
    "switches": "switched off by operators",
    "request_buckets": "numbers of requests",
    "sign_in_attempts": "browsers of which no one knows yet whose they are",
    "dependencies": "servers that builds wait for",
    "model_buckets": "what models have left",
    "sandbox_fleet": "a count of sandboxes",
    "deployment": "the namespace that the database is bound to",
    "payload_keys": "check values of the keys that encrypt what Temporal stores",
    "formats": "versions of stored formats",
    "processes": "programs that run",
    "reaper_steps": "where the reaper is",
    "doomed_objects": "names of objects to delete; the API has no privilege on it",
    "seen_images": "hashes of images; the API has no privilege on it",
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
        "delete from doomed_objects",
        "delete from bulk_runs",
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


async def test_an_owner_without_further_rights_gets_the_sql_and_still_sees_every_row(
    stack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner of a hosted database: no superuser, and it may make no roles."""
    name = f"test_{uuid.uuid4().hex[:8]}"
    monkeypatch.setattr(api_role, "API_ROLE", f"{name}_api")
    url = make_url(stack.environment["DATABASE_URL"])
    own = url.set(username=f"{name}_owner", password=name, database=name).render_as_string(hide_password=False)
    superuser = await asyncpg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False))
    try:
        await superuser.execute(f"create role {name}_owner login password '{name}'")
        await superuser.execute(f"create database {name} owner {name}_owner")
        statement = f"create role {name}_api login password '…'"
        assert (await migrate(own, "a-password")).statements == [statement]
        await superuser.execute(statement.replace("…", scram_verifier(name)))
        assert not (await migrate(own)).statements
        refused = (await migrate(own, "a-password")).statements
        assert refused == [f"alter role {name}_api with login password '…'"]

        async with open_sessions(own, pool_size=2) as owner:
            of_ada = await _project_of(owner, "ada")
            of_bob = await _project_of(owner, "bob")
            every = "select id from projects"
            assert set(await _names(owner, every)) == {of_ada, of_bob}, "workers and earlier versions say nothing"
            assert await _names(owner.acting(Access("ada")), every) == [of_ada], "forced"
            with pytest.raises(NoRowSecurity, match="cofounder_api"):
                await check_row_security(owner, "ada", has_issuers=False)
        theirs = make_url(own).set(username=f"{name}_api").render_as_string(hide_password=False)
        async with open_sessions(theirs, pool_size=2) as api:
            assert await _names(api.acting(Access("bob")), every) == [of_bob]
            await check_row_security(api, "ada", has_issuers=True)
    finally:
        await superuser.execute(f"drop database if exists {name} with (force)")
        await superuser.execute(f"drop role if exists {name}_api, {name}_owner")
        await superuser.close()


async def test_the_password_is_set_without_being_sent(stack: LocalStack, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"test_{uuid.uuid4().hex[:8]}_api"
    monkeypatch.setattr(api_role, "API_ROLE", name)
    database_url = await new_database(stack)
    sent: list[str] = []
    engine = make_engine(database_url, pool_size=1)
    try:
        async with engine.begin() as connection:
            event.listen(engine.sync_engine, "before_cursor_execute", lambda *given: sent.append(given[2]))
            assert not (await connection.run_sync(make_api_role, "open sesame")).statements
        assert sent
        assert not [statement for statement in sent if "sesame" in statement]
        url = make_url(database_url).set(drivername="postgresql", username=name, password="open sesame")
        connected = await asyncpg.connect(url.render_as_string(hide_password=False))
        assert await connected.fetchval("select current_user") == name
        await connected.close()
    finally:
        async with engine.begin() as connection:
            await connection.execute(text(f"drop owned by {name}"))
            await connection.execute(text(f"drop role {name}"))
        await engine.dispose()


async def test_only_who_creates_an_organisation_becomes_its_first_owner(owner: Sessions, api: Sessions) -> None:
    ada, bob = f"ada-{uuid.uuid4()}", f"bob-{uuid.uuid4()}"
    await _project_of(owner, ada)
    await _project_of(owner, bob)
    org_id = uuid.uuid4()
    async with transaction(api.acting(Access(ada))) as tx:
        await insert_organisation(tx, org_id, "ours", ada)
    assert org_id in await _names(api.acting(Access(ada)), "select id from organisations")
    assert await _names(api.acting(Access(bob)), f"select id from organisations where id = '{org_id}'") == []
    async with transaction(owner) as tx:
        await delete_member(tx, org_id, ada)
    join = f"insert into memberships (org_id, user_id, role) values ('{org_id}', '{bob}', 'owner')"
    with pytest.raises(DBAPIError) as refusal:
        await _names(api.acting(Access(bob)), join)
    assert sqlstate(refusal.value) == _FORBIDDEN
