"""Migrate and seed a database. Safe to run at every start, and by several processes at once."""

import asyncio
import random
from collections.abc import Iterable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from db.api_role import ApiRole, make_api_role
from db.errors import sqlstate
from db.formats import older_processes, own_formats, readable_from, record_schema
from db.seed import seed
from db.session import make_engine
from domain.errors import Misconfigured, WrongVersion
from domain.formats import SCHEMA, Format, refusal_of_contract, unreadable

_LOCK = 0x0C0F0DE5
"""Key of the advisory lock that lets one migration run at a time."""

_LOCK_SECONDS = 3.0
"""A migration waits for the lock of a table for this long and then starts over: while it waits, so do the programs."""

_STARTS = 40
"""A migration that gets no lock is started this many times, with a second or two in between."""

_NO_LOCK = {"55P03", "40P01"}
"""PostgreSQL's codes for a lock that was not free in time, and for a deadlock."""


def _upgrade(connection: Connection, api_password: str | None) -> ApiRole:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    if _is_newer(connection, scripts):
        return ApiRole()
    for needs, revision in _contracts(scripts.iterate_revisions("head", _current(connection) or "base")):
        if older := older_processes(connection, needs):
            raise WrongVersion(refusal_of_contract(revision, older))
    command.upgrade(config, "head")
    return make_api_role(connection, api_password)


def _is_newer(connection: Connection, scripts: ScriptDirectory) -> bool:
    """Whether a later version has migrated the database, which this one can still work with: there is nothing to do.

    Raises:
        WrongVersion: it can't.
    """
    current = _current(connection)
    if current is None or current in {each.revision for each in scripts.walk_revisions()}:
        return False
    formats = [Format(SCHEMA, int(current), readable_from(connection) or int(current))]
    if problem := unreadable(own_formats(), formats):
        raise WrongVersion(problem)
    return True


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _contracts(scripts: Iterable[Script]) -> list[tuple[int, str]]:
    """Of each contract migration, the version that programs need at least, and its own."""
    return [(int(each.module.needs), each.revision) for each in scripts if each.module.kind == "contract"]


def record_version(connection: Connection, scripts: ScriptDirectory) -> None:
    """Record which programs can work with the schema as it is now. Alembic's entry point calls it."""
    if (current := _current(connection)) is not None:
        needs = [needs for needs, _ in _contracts(scripts.iterate_revisions(current, "base"))]
        record_schema(connection, int(current), max(needs, default=0))


async def _migrate_once(engine: AsyncEngine, api_password: str | None) -> ApiRole:
    """Migrate in one transaction: either all of it or nothing happens."""
    async with engine.begin() as connection:
        await connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        await connection.execute(text(f"set local lock_timeout = '{_LOCK_SECONDS * 1000:.0f}ms'"))
        role = await connection.run_sync(_upgrade, api_password)
        await seed(connection)
    return role


async def migrate(database_url: str, api_password: str | None = None) -> ApiRole:
    """Run pending migrations, insert missing plans, and make the API's role. Does nothing if a later version has
    migrated the database.

    Programs that run go on meanwhile: if a migration can't have a lock soon, it lets them through and starts over.

    Args:
        api_password: the password to give the API's role; None leaves it as it is.

    Returns:
        What is left to do for the API's role, by someone who may.

    Raises:
        WrongVersion: a migration would stop running processes, or the database needs a later version.
        Misconfigured: the database can't be reached, or rejects a statement.
    """
    engine = make_engine(database_url, pool_size=1, limited=False)
    try:
        for start in range(1, _STARTS + 1):
            try:
                return await _migrate_once(engine, api_password)
            except DBAPIError as error:
                if sqlstate(error) not in _NO_LOCK or start == _STARTS:
                    raise
            await asyncio.sleep(random.uniform(1, 2))
        raise AssertionError("the last start returns or raises")
    except (OSError, SQLAlchemyError) as error:
        cause = str(error).splitlines()[0]
        raise Misconfigured(
            f"The database could not be migrated. Check that DATABASE_URL names a running PostgreSQL and a user who "
            f"may create tables. ({cause})"
        ) from error
    finally:
        await engine.dispose()
