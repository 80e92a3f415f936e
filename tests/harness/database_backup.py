"""Backs up a database and puts it back, while its programs run, as a restore to an earlier time does."""

import io
from dataclasses import dataclass

import asyncpg

from db.models import Base


@dataclass(frozen=True)
class Backup:
    """The rows of all tables at one moment, in PostgreSQL's own format."""

    rows: dict[str, bytes]


async def back_up(database_url: str) -> Backup:
    """Copy all rows, in one transaction."""
    connection = await _connect(database_url)
    try:
        rows = {}
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            for table in Base.metadata.sorted_tables:
                copy = io.BytesIO()
                await connection.copy_from_table(table.name, output=copy, format="binary")
                rows[table.name] = copy.getvalue()
        return Backup(rows)
    finally:
        await connection.close()


async def put_back(database_url: str, backup: Backup) -> None:
    """Replace all rows by those of the backup, in one transaction. No trigger and no foreign key is checked."""
    connection = await _connect(database_url)
    try:
        async with connection.transaction():
            await connection.execute("set local session_replication_role = replica")
            names = ", ".join(table.name for table in Base.metadata.sorted_tables)
            await connection.execute(f"truncate {names}")
            for name, rows in backup.rows.items():
                await connection.copy_to_table(name, source=io.BytesIO(rows), format="binary")
    finally:
        await connection.close()


async def _connect(database_url: str) -> asyncpg.Connection:
    return await asyncpg.connect(database_url.replace("+asyncpg", ""))
