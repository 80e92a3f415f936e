"""Bringing a database up to date: migrations, then the seed. Safe to run at every start and by several at once."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from db.seed import seed
from db.session import make_engine
from domain.errors import Misconfigured

_LOCK = 0x0C0F0DE5
"""Advisory lock that lets one migration run at a time."""


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


async def migrate(database_url: str) -> None:
    """Run the migrations that are missing, and insert the plans that are missing.

    Raises:
        Misconfigured: the database can't be reached, or refuses.
    """
    engine = make_engine(database_url, pool_size=1)
    try:
        async with engine.begin() as connection:
            await connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            await connection.run_sync(_upgrade)
            await seed(connection)
    except (OSError, SQLAlchemyError) as error:
        cause = str(error).splitlines()[0]
        raise Misconfigured(
            f"The database could not be brought up to date. Check that DATABASE_URL names a PostgreSQL that runs and a "
            f"user who may create tables. ({cause})"
        ) from error
    finally:
        await engine.dispose()
