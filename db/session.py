"""Connections: one engine for each process."""

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from db.nudges import NudgeSender
from domain.audit import Author
from domain.errors import Misconfigured

_TRUSTED_SECONDS = 10.0
"""A connection last used less than this many seconds ago counts as alive, unless the driver has seen it close."""


WORKER_POOL = 20
"""Connections that a worker keeps. It opens up to twice as many, as an API does."""

API_POOL = 10
"""Connections that an API keeps."""

LISTENERS = 2
"""Connections that a process may open beside its pool, to listen and to check."""

CONNECT_SECONDS = 10
"""Seconds until a server that does not answer counts as away."""

STATEMENT_SECONDS = 60
"""The server ends a statement that takes longer. Ours take milliseconds."""

LOCK_SECONDS = 20
"""The server ends a statement that waits longer for a lock. The transaction is tried again."""

IDLE_SECONDS = 60
"""The server ends a transaction whose client has been silent for longer, such as one on a machine that froze. Its locks
would hold up all builds of a user."""

COMMAND_SECONDS = 75
"""The client gives up an answer after this long. Longer than `STATEMENT_SECONDS`, so that the server speaks first."""

KEEPALIVE_SECONDS = (30, 10, 3)
"""Either end asks a silent peer after the first, again after the second, and gives up after the third many times."""

_UNSENT_MILLISECONDS = 30_000
"""A connection ends if what was sent is not acknowledged for this long."""

_SERVER_SETTINGS: Mapping[str, str] = {"application_name": "cofounder", "timezone": "UTC"}

_LIMITS: Mapping[str, str] = {
    "statement_timeout": f"{STATEMENT_SECONDS}s",
    "lock_timeout": f"{LOCK_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s",
    "tcp_keepalives_idle": str(KEEPALIVE_SECONDS[0]),
    "tcp_keepalives_interval": str(KEEPALIVE_SECONDS[1]),
    "tcp_keepalives_count": str(KEEPALIVE_SECONDS[2]),
}


def unusable(error: Exception) -> Misconfigured:
    """What to tell an operator whose database does not answer, or has not been migrated."""
    reason = str(error).strip() or type(error).__name__  # a timeout while connecting says nothing
    return Misconfigured(
        "The database does not answer, or has not been migrated. Check DATABASE_URL, then run `cofounder migrate`. "
        f"({reason.splitlines()[0]})"
    )


def pool_of(connections: int | None, default: int) -> int:
    """The connections to keep, so that the process opens no more than `connections`; None means the default pool."""
    return default if connections is None else max(1, connections // 2)


def make_engine(database_url: str, pool_size: int = API_POOL, *, limited: bool = True) -> AsyncEngine:
    """Make an engine. It connects when it is first used; dispose of it when done.

    `limited`: end statements and transactions that take too long. Migrations may take longer.
    """
    limits = _LIMITS if limited else {}
    engine = create_async_engine(
        database_url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_use_lifo=True,  # use few connections, so that each has most statements prepared
        pool_timeout=20,
        hide_parameters=True,  # what founders write must not reach error messages, and so histories and logs
        connect_args={
            "timeout": CONNECT_SECONDS,
            "command_timeout": COMMAND_SECONDS if limited else None,
            "server_settings": {**_SERVER_SETTINGS, **limits},
        },
    )
    _check_before_use(engine)
    _keep_alive(engine)
    return engine


@dataclass(frozen=True)
class Access:
    """Whose rows a transaction may see, for row-level security. The role of workers sees all rows without it.

    `user_id`: the user; None, together with `every_row`, for what acts across users.
    """

    user_id: str | None
    every_row: bool = False

    @classmethod
    def everything(cls) -> "Access":
        """Every user's rows: to find out who someone is, for operators, and for what users share."""
        return cls(None, every_row=True)

    @property
    def statement(self) -> str:
        """The SQL that grants it until the transaction ends."""
        settings = []
        if self.user_id is not None:
            quoted = self.user_id.replace("'", "''")
            settings.append(f"set local app.user_id = '{quoted}'")
        if self.every_row:
            settings.append("set local app.every_row = 'on'")
        return "; ".join(settings)


class Sessions:
    """Where transactions take their connections from; see `db/transaction.py`."""

    def __init__(
        self,
        statements: AsyncEngine,
        nudges: NudgeSender,
        access: Access | None = None,
        author: Author | None = None,
    ) -> None:
        self.access = access
        """Whose rows the transactions see; None sets nothing."""
        self.author = author
        """Who acts in the transactions; None for programs that act by themselves."""
        self.statements = statements
        """The engine's connections in autocommit: each statement is a transaction of its own, unless one is begun."""
        self.nudges = nudges
        """Tells the readers of feeds of what is committed. Close it before the engine is disposed of."""

    def acting(self, access: Access, author: Author | None = None) -> "Sessions":
        """The same connections, for transactions with this access, and with this author in the audit."""
        return Sessions(self.statements, self.nudges, access, author or self.author)

    def by(self, author: Author) -> "Sessions":
        """The same connections and access, with this author in the audit."""
        return Sessions(self.statements, self.nudges, self.access, author)


def make_sessions(engine: AsyncEngine) -> Sessions:
    """Let transactions use the engine."""
    statements = engine.execution_options(isolation_level="AUTOCOMMIT")
    return Sessions(statements, NudgeSender(statements))


@asynccontextmanager
async def open_sessions(database_url: str, pool_size: int = API_POOL) -> AsyncIterator[Sessions]:
    """Make an engine and sessions on it; dispose of the engine at the end of the block."""
    engine = make_engine(database_url, pool_size)
    sessions = make_sessions(engine)
    try:
        yield sessions
    finally:
        await sessions.nudges.close()
        await engine.dispose()


def _keep_alive(engine: AsyncEngine) -> None:
    """Notice a peer that has vanished without closing its connections, while they are idle as well."""

    @event.listens_for(engine.sync_engine, "connect")
    def set_options(connection: Any, _: ConnectionPoolEntry) -> None:
        transport = getattr(connection.driver_connection, "_transport", None)
        link = None if transport is None else transport.get_extra_info("socket")
        if link is None or link.family not in (socket.AF_INET, socket.AF_INET6):
            return
        options = {
            "TCP_KEEPIDLE": KEEPALIVE_SECONDS[0],
            "TCP_KEEPINTVL": KEEPALIVE_SECONDS[1],
            "TCP_KEEPCNT": KEEPALIVE_SECONDS[2],
            "TCP_USER_TIMEOUT": _UNSENT_MILLISECONDS,
        }
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options.items():
            if (option := getattr(socket, name, None)) is not None:  # not every system has each
                link.setsockopt(socket.IPPROTO_TCP, option, value)


def _check_before_use(engine: AsyncEngine) -> None:
    """Never hand out a dead connection, like `pool_pre_ping`, but without a ping each time.

    A ping takes three round trips, and a turn has half a dozen transactions.
    """
    dialect = engine.dialect

    @event.listens_for(engine.sync_engine, "checkin")
    def note_use(_: Any, entry: ConnectionPoolEntry) -> None:
        entry.info["used_at"] = monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def check(connection: Any, entry: ConnectionPoolEntry, _: Any) -> None:
        if connection.driver_connection.is_closed():
            raise DisconnectionError("the server has closed the connection")
        used_at = entry.info.get("used_at")
        if used_at is None or monotonic() - used_at < _TRUSTED_SECONDS:
            return
        try:
            dialect.do_ping(connection)
        except dialect.loaded_dbapi.Error as error:
            raise DisconnectionError("the connection is dead") from error
