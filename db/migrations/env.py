"""Alembic's entry point. `db.migrate` passes a connection; the `alembic` command connects to DATABASE_URL."""

import asyncio

from alembic import context
from sqlalchemy import Column, Connection
from sqlalchemy.schema import SchemaItem

from db.migrate import record_version
from db.models import RETIRED_COLUMNS, Base
from db.session import make_engine
from settings import load_settings


def _is_compared(item: SchemaItem, name: str | None, *_: object) -> bool:
    return not (isinstance(item, Column) and (item.table.name, name) in RETIRED_COLUMNS)


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_server_default=True,
        include_object=_is_compared,
        autogenerate_plugins=["alembic.autogenerate.*", "~alembic.autogenerate.comments"],  # prose, free to reword
    )
    with context.begin_transaction():
        context.run_migrations()
        record_version(connection, context.script)


async def _connect_and_run() -> None:
    engine = make_engine(load_settings().database_url, limited=False)
    async with engine.connect() as connection:
        await connection.run_sync(_run)
        await connection.commit()
    await engine.dispose()


if existing := context.config.attributes.get("connection"):
    _run(existing)
else:
    asyncio.run(_connect_and_run())
