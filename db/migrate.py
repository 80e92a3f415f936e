"""Migrate and seed a database. Safe to run at every start, and by several processes at once."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from db.seed import seed
from db.session import make_engine
from domain.errors import Misconfigured

_LOCK = 0x0C0F0DE5
"""Key of the advisory lock that lets one migration run at a time."""


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


async def migrate(database_url: str) -> None:
    """Run pending migrations, and insert missing plans.

    Raises:
        Misconfigured: the database can't be reached, or rejects a statement.
    """
    engine = make_engine(database_url, pool_size=1, limited=False)
    try:
        async with engine.begin() as connection:
            await connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            await connection.run_sync(_upgrade)
            await seed(connection)
    except (OSError, SQLAlchemyError) as error:
        cause = str(error).splitlines()[0]
        raise Misconfigured(
            f"The database could not be migrated. Check that DATABASE_URL names a running PostgreSQL and a user who "
            f"may create tables. ({cause})"
        ) from error
    finally:
        await engine.dispose()
