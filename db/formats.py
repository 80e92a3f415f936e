"""The formats in the database, and the processes that share it."""

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, exists, func, select, text
from sqlalchemy.dialects.postgresql import insert

from db.models import Process, StoredFormat
from db.transaction import Transaction
from domain.formats import ALIVE_SECONDS, SCHEMA, STORED, Format, OlderProcess
from domain.worker_roles import WorkerRole

_KEPT = timedelta(days=1)
"""Rows of processes that were not seen for this long are deleted."""

_OLDER = text(
    "select role, version, count(*) from processes where (reads->>:schema)::int < :needs"
    " and seen_at > now() - make_interval(secs => :alive) group by role, version order by role, version"
)


@dataclass(frozen=True)
class ThisProcess:
    """A process as it announces itself."""

    id: uuid.UUID
    role: str
    version: str
    connections: int
    """That it opens to the database at most."""
    roles: Sequence[WorkerRole] = ()
    """Whose task queues it polls, if it is a worker."""


@dataclass(frozen=True)
class ConnectionUse:
    """How many connections all running processes may open, and how many the server gives to ordinary users."""

    processes: int
    wanted: int
    given: int


_CONNECTIONS = text(
    """
    select count(*), coalesce(sum(connections), 0),
        current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
            - coalesce(current_setting('reserved_connections', true), '0')::int
    from processes where seen_at > now() - make_interval(secs => :alive)
    """
)


async def connection_use(tx: Transaction) -> ConnectionUse:
    """Add up what the running processes may open. Processes of versions that do not say how many count as none."""
    return ConnectionUse(*(await tx.execute(_CONNECTIONS, {"alive": ALIVE_SECONDS})).one())


_WORKERS = text(
    """
    select each, count(*) from processes, unnest(string_to_array(coalesce(roles, :build), ',')) each
    where role = 'worker' and seen_at > clock_timestamp() - make_interval(secs => :alive) group by each
    """
)


async def workers_by_role(tx: Transaction) -> Mapping[str, int]:
    """How many running workers take the work of each role. A worker of an earlier version has the role build."""
    rows = await tx.execute(_WORKERS, {"build": WorkerRole.BUILD, "alive": ALIVE_SECONDS})
    return {role: count for role, count in rows}


@cache
def own_formats() -> Mapping[str, int]:
    """The version of each format that this program reads. That of the schema is its last migration's number."""
    names = (Path(__file__).parent / "migrations" / "versions").glob("*.py")
    numbers = [int(found[0]) for each in names if (found := re.match(r"\d{4}", each.name))]
    return {SCHEMA: max(numbers), **STORED}


async def read_formats(tx: Transaction) -> list[Format]:
    """Read what is stored.

    Raises:
        ProgrammingError: the database has not been migrated, or only by a version without formats.
    """
    rows = await tx.session.scalars(select(StoredFormat))
    return [Format(row.name, row.written, row.readable_from) for row in rows]


_RAISE = text(
    """
    update formats set written = greatest(written, :version), readable_from = greatest(readable_from, :version)
    where name = :name and not exists (
        select 1 from processes
        where (reads->>:name)::int < :version and seen_at > now() - make_interval(secs => :alive)
    )
    returning 1
    """
)


async def may_write(tx: Transaction, name: str, version: int) -> bool:
    """Whether this version of a format may be written: no running process fails to read it.

    The first time that it may, programs which can't read it are shut out.
    """
    written = await tx.session.scalar(select(StoredFormat.written).where(StoredFormat.name == name))
    if written is not None and written >= version:
        return True
    values = {"name": name, "version": version, "alive": ALIVE_SECONDS}
    return (await tx.execute(_RAISE, values)).first() is not None


async def runs_older_worker(tx: Transaction, schema: int) -> bool:
    """Whether a worker runs that knows only an earlier version of the schema than this."""
    is_older = Process.reads[SCHEMA].as_integer() < schema
    is_alive = Process.seen_at > func.now() - timedelta(seconds=ALIVE_SECONDS)
    return bool(await tx.session.scalar(select(exists().where(Process.role == "worker", is_older, is_alive))))


async def running_older(tx: Transaction, schema: int) -> Sequence[OlderProcess]:
    """The running processes, APIs too, that know only an earlier version of the schema than this."""
    values = {"schema": SCHEMA, "needs": schema, "alive": ALIVE_SECONDS}
    return [OlderProcess(*row) for row in await tx.execute(_OLDER, values)]


async def announce(tx: Transaction, process: ThisProcess) -> None:
    """Record that the process runs now, and what it reads and writes."""
    formats = dict(own_formats())
    values: dict[str, Any] = {"role": process.role, "version": process.version, "reads": formats, "writes": formats}
    values |= {"connections": process.connections, "seen_at": func.now(), "roles": ",".join(process.roles) or None}
    await tx.session.execute(
        insert(Process).values(id=process.id, **values).on_conflict_do_update(index_elements=["id"], set_=values)
    )
    await tx.session.execute(delete(Process).where(Process.seen_at < func.now() - _KEPT))


async def forget(tx: Transaction, process_id: uuid.UUID) -> None:
    """Record that the process has ended."""
    await tx.session.execute(delete(Process).where(Process.id == process_id))


def older_processes(connection: Connection, needs: int) -> Sequence[OlderProcess]:
    """The running processes whose schema is older than the given version."""
    if not _has_table(connection, "processes"):
        return []
    values = {"schema": SCHEMA, "needs": needs, "alive": ALIVE_SECONDS}
    return [OlderProcess(*row) for row in connection.execute(_OLDER, values)]


def readable_from(connection: Connection) -> int | None:
    """The oldest schema whose programs can work with this database; None before there were formats."""
    if not _has_table(connection, "formats"):
        return None
    found = connection.execute(select(StoredFormat.readable_from).where(StoredFormat.name == SCHEMA)).scalar()
    return int(found) if found is not None else None


def record_schema(connection: Connection, written: int, readable_from: int) -> None:
    """Record the schema's version after a migration."""
    if not _has_table(connection, "formats"):
        return
    values = {"written": written, "readable_from": readable_from}
    connection.execute(
        insert(StoredFormat).values(name=SCHEMA, **values).on_conflict_do_update(index_elements=["name"], set_=values)
    )


def _has_table(connection: Connection, name: str) -> bool:
    return connection.execute(select(func.to_regclass(name))).scalar() is not None
