"""Backups of a database by the recipe of docs/backup.md, with the tools of the embedded PostgreSQL."""

import asyncio
from pathlib import Path

from sqlalchemy.engine import make_url

from local.postgres import postgres_binaries

_TRIES = 3


class BackupFailed(Exception):
    """A backup could not be written or put back. Says what the tool has printed."""


async def dump_database(database_url: str, file: Path) -> None:
    """Write a backup of the database to a file."""
    await _run("pg_dump", "--format=custom", f"--file={file}", _plain(database_url))


async def restore_database(database_url: str, file: Path) -> None:
    """Put the database back to a backup. Programs that still read may get in the way; then it is tried again."""
    arguments = (
        "pg_restore",
        "--clean",
        "--if-exists",
        "--no-owner",
        "--single-transaction",
        f"--dbname={_plain(database_url)}",
        str(file),
    )
    for _ in range(_TRIES - 1):
        try:
            await _run(*arguments)
        except BackupFailed:
            await asyncio.sleep(1)
        else:
            return
    await _run(*arguments)


def _plain(database_url: str) -> str:
    return make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)


async def _run(program: str, *arguments: str) -> None:
    path = postgres_binaries() / program
    process = await asyncio.create_subprocess_exec(str(path), *arguments, stderr=asyncio.subprocess.PIPE)
    _, errors = await process.communicate()
    if process.returncode != 0:
        raise BackupFailed(errors.decode())
