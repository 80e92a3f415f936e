"""A database of its own for a test of migrations."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from db.session import make_engine
from local.stack import LocalStack

MIGRATIONS = Path(__file__).parents[2] / "db" / "migrations"


@asynccontextmanager
async def empty_database(stack: LocalStack) -> AsyncIterator[AsyncEngine]:
    """An empty database on the stack's server, dropped at the end."""
    name = f"test_{uuid.uuid4().hex}"
    server = make_engine(stack.environment["DATABASE_URL"], pool_size=1).execution_options(isolation_level="AUTOCOMMIT")
    async with server.connect() as connection:
        await connection.execute(text(f"create database {name}"))
        engine = make_engine(stack.environment["DATABASE_URL"].rpartition("/")[0] + f"/{name}")
        try:
            yield engine
        finally:
            await engine.dispose()
            await connection.execute(text(f"drop database {name} with (force)"))
    await server.dispose()


async def migrate_to(engine: AsyncEngine, revision: str) -> None:
    """Run the migrations up to a revision."""

    def upgrade(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    async with engine.begin() as connection:
        await connection.run_sync(upgrade)
