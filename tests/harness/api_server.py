"""Runs the API as its process does, on a database of its own, for tests of the API and of what talks to it."""

import asyncio
import hashlib
import secrets
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx2
from pydantic import SecretStr
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import make_url
from temporalio.client import Client

from api.app import create_app
from api.deps import Resources
from api.main import open_resources
from api.server import Server
from clients.temporal import connect_temporal
from db.migrate import migrate
from db.models import ApiKey, Base, Build, Project, User
from db.session import Sessions, make_engine, make_sessions
from db.transaction import transaction
from db.users import ensure_user
from domain.api_keys import ID_DIGITS, ApiKeyText
from domain.identity import FOUNDER_SCOPES
from domain.user_id import is_user_id
from local.postgres import api_database_url
from local.stack import LocalStack
from settings import Settings
from tests.harness.wait import DEADLINE

TOKEN = "a-token-for-tests"
OPERATORS = "a-token-of-operators"
AS_OPERATOR = {"Authorization": f"Bearer {OPERATORS}"}
BRIEF = {"name": "Pantry Pal", "problem": "Food is forgotten.", "features": ["A list", "A reminder"], "tone": "warm"}


_NOT_COUNTED = (
    *("processes", "dependencies", "request_buckets"),
    *("users", "organisations", "memberships", "api_keys"),
)


@dataclass
class RunningApi:
    """A running API and its clients."""

    url: str
    http: httpx2.AsyncClient
    sessions: Sessions
    """Transactions of the tables' owner, who sees all rows. The API itself has a role of its own."""
    settings: Settings
    """What it was started with; DATABASE_URL is the owner's."""
    resources: Resources
    temporal: Client

    async def project(self, user: str | None = None, **body: Any) -> str:
        """Create a project and return its id."""
        answer = await self.http.post("/v1/projects", json=body or {"brief": BRIEF}, headers=as_user(user))
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def build(self, project: str | None = None) -> str:
        """Start a build and return its id."""
        project = project or await self.project()
        answer = await self.http.post(f"/v1/projects/{project}/builds", json={"goal": "Build it."})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def rows(self) -> dict[str, int]:
        """Count the rows of each table, except those of users, and those that programs write at times of their own."""
        async with transaction(self.sessions) as tx:
            return {
                name: int(await tx.session.scalar(select(func.count()).select_from(table)) or 0)
                for name, table in Base.metadata.tables.items()
                if name not in _NOT_COUNTED
            }

    async def row(self, build_id: str) -> Build:
        """Read a build's row."""
        async with transaction(self.sessions) as tx:
            return (await tx.session.scalars(select(Build).where(Build.id == uuid.UUID(build_id)))).one()


def as_user(user: str | None) -> dict[str, str]:
    """Return the headers of a user's API key. The client makes the user and the key before it sends them."""
    if user is None:
        return {}
    key = str(key_of(user))
    _users[key] = user
    return {"Authorization": f"Bearer {key}"}


_users: dict[str, str] = {}
"""The users of the keys that tests have asked for."""


def for_user(user: str) -> dict[str, str]:
    """Return the headers with which an operator acts for a user."""
    return {**AS_OPERATOR, "X-Cofounder-User": user}


def key_of(user: str) -> ApiKeyText:
    """Return the user's key, the same each time."""
    secret = hashlib.sha256(user.encode()).hexdigest()
    return ApiKeyText(secret[:ID_DIGITS], secret)


async def make_key(sessions: Sessions, user: str) -> str:
    """Make the user, unless it exists, and its key. Return the key."""
    key = key_of(user)
    row = {
        "id": key.id,
        "user_id": user,
        "name": "tests",
        "secret_hash": key.secret_hash,
        "scopes": sorted(FOUNDER_SCOPES),
        "created_by": user,
    }
    async with transaction(sessions) as tx:
        await ensure_user(tx, user)
        await tx.session.execute(insert(ApiKey).values(row).on_conflict_do_nothing())
    return str(key)


async def new_database(stack: LocalStack) -> str:
    """Create a migrated, empty database in the stack's PostgreSQL and return its URL."""
    url = make_url(stack.environment["DATABASE_URL"])
    name, template = f"test_{secrets.token_hex(4)}", "migrated_template"

    def url_of(database: str) -> str:
        return url.set(drivername="postgresql+asyncpg", database=database).render_as_string(hide_password=False)

    connection = await asyncpg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False))
    try:
        async with _making_template:
            if not await connection.fetchval("select 1 from pg_database where datname = $1", template):
                await connection.execute(f"create database {name}")
                await migrate(url_of(name))
                await connection.execute(f"alter database {name} rename to {template}")
        await connection.execute(f"create database {name} template {template}")
    finally:
        await connection.close()
    return url_of(name)


_making_template = asyncio.Lock()
"""The first database is migrated, the next ones are copies. Alembic can't migrate two at once in one process."""


def settings_for(database_url: str, environment: Mapping[str, str] | None = None, **changed: Any) -> Settings:
    """Return settings of an API on this database, without limits; everything else comes from the environment."""
    pointed = {name.lower(): value for name, value in (environment or {}).items()}
    given = {name: value for name, value in pointed.items() if name in Settings.model_fields}
    own = {"database_url": database_url, "api_token": SecretStr(TOKEN), "temporal_task_queue": "api-tests"}
    unlimited = {f"{name}_per_minute": 0 for name in ("reads", "writes", "expensive_requests", "failed_sign_ins")}
    return Settings(**{**unlimited, "new_projects_per_day": 0, "open_feeds_per_user": 0, **given, **own, **changed})


@asynccontextmanager
async def running_api(
    settings: Settings, environment: Mapping[str, str], port: int = 0, *, as_owner: bool = False
) -> AsyncIterator[RunningApi]:
    """Serve the API on the given port or a free one, with the Temporal of the environment, under its own database role
    or that of the tables' owner.

    Its PUBLIC_URL and PREVIEW_URL have the port that it gets, unless the settings name others.
    """
    temporal = await connect_temporal(environment, lazy=True)
    listening = socket.create_server(("127.0.0.1", port))
    port = listening.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    own = {"public_url": url, "preview_url": f"http://*.localhost:{port}"}
    settings = settings.model_copy(update={name: own[name] for name in own if name not in settings.model_fields_set})
    api_url = settings.database_url if as_owner else api_database_url(settings.database_url)
    app = create_app(open_resources(settings.model_copy(update={"database_url": api_url}), environment))
    server = Server(app, "127.0.0.1", port)
    serving = asyncio.create_task(server.serve([listening]))
    while not server.started:
        assert not serving.done(), "the API did not start"
        await asyncio.sleep(0.01)
    engine = make_engine(settings.database_url, pool_size=2)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    try:
        sessions = make_sessions(engine)
        async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=DEADLINE, trust_env=False) as http:
            http.event_hooks["request"] = [_users_before_requests(sessions)]
            yield RunningApi(url, http, sessions, settings, app.state.resources, temporal)
    finally:
        server.should_exit = True
        await serving
        await engine.dispose()


def _users_before_requests(sessions: Sessions) -> Callable[[httpx2.Request], Awaitable[None]]:
    """A hook that makes the user of a request's key, unless it exists."""
    made: set[str] = set()

    async def make_user(request: httpx2.Request) -> None:
        user = _users.get(request.headers.get("Authorization", "").removeprefix("Bearer "))
        user = request.headers.get("X-Cofounder-User") if user is None else user
        if user is not None and user not in made and is_user_id(user):
            await make_key(sessions, user)
            made.add(user)

    return make_user


async def suspend(api: RunningApi, user: str, suspended: bool = True) -> None:
    """Suspend a user's account, or end that."""
    async with transaction(api.sessions) as tx:
        (await tx.session.scalars(select(User).where(User.id == user))).one().suspended = suspended


async def project_row(api: RunningApi, project: str) -> Project:
    """Read a project's row."""
    async with transaction(api.sessions) as tx:
        return (await tx.session.scalars(select(Project).where(Project.id == uuid.UUID(project)))).one()
