"""Transactions whose statements go straight to the driver, with an ORM session beside them when one is needed.

A turn of a build makes two dozen statements, and SQLAlchemy's session takes several times as long over each as the
driver does. So the statements of every turn are written in SQL, compiled once by SQLAlchemy and run here. Rarer work
uses `Transaction.session`, in the same transaction. Connections come from the engine's pool.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import asyncpg
from sqlalchemy import Dialect, TextClause, text
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    MultipleResultsFound,
    NoResultFound,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.ext.asyncio import AsyncSession

from db.connections import PooledConnection
from db.errors import is_outage
from db.session import Access, Sessions
from domain.audit import Author
from domain.errors import DatabaseUnavailable

_DIALECT: Dialect = asyncpg_dialect()  # type: ignore[no-untyped-call]

_UNDO_SECONDS = 5.0

_ERRORS: Sequence[tuple[type[Exception], type[DBAPIError]]] = (
    (asyncpg.IntegrityConstraintViolationError, IntegrityError),
    (asyncpg.DataError, DataError),
    (asyncpg.SyntaxOrAccessError, ProgrammingError),
)
"""The driver's errors and SQLAlchemy's for them; every other one becomes an OperationalError."""


class Rows:
    """What a statement returned. Rows are tuples."""

    def __init__(self, records: Sequence[asyncpg.Record]) -> None:
        self._records = records

    def __iter__(self) -> Iterator[Any]:
        return iter(self._records)

    def first(self) -> Any:
        """The first row, if there is one."""
        return self._records[0] if self._records else None

    def one_or_none(self) -> Any:
        """The only row, if there is one."""
        if len(self._records) > 1:
            raise MultipleResultsFound(f"{len(self._records)} rows were found where one was expected")
        return self.first()

    def one(self) -> Any:
        """The only row."""
        row = self.one_or_none()
        if row is None:
            raise NoResultFound("no row was found where one was expected")
        return row

    def scalar(self) -> Any:
        """The first value of the first row, if there is one."""
        row = self.first()
        return None if row is None else row[0]


class Transaction:
    """A connection whose statements go to the driver. Made by `transaction` and `autocommit`."""

    def __init__(self, connection: PooledConnection, author: Author | None) -> None:
        self.author = author
        """Who acts, for the audit; None if a program acts by itself."""
        self.nudged: set[uuid.UUID] = set()
        """Builds whose feeds' readers are nudged after the commit."""
        self._connection = connection
        self._driver = connection.driver
        self._session: AsyncSession | None = None

    async def execute(self, statement: TextClause, parameters: Mapping[str, Any]) -> Rows:
        """Run a statement of `text`, with the parameters that it names.

        Raises:
            DBAPIError: as from a session.
        """
        if self._session is not None:
            await self._session.flush()
        compiled = _compiled(statement)
        values = [
            parameters[name] if to_driver is None else to_driver(parameters[name])
            for name, to_driver in compiled.parameters
        ]
        return Rows(await self._ask(self._driver.fetch(compiled.sql, *values), compiled.sql))

    @property
    def session(self) -> AsyncSession:
        """An ORM session in this transaction. It is flushed before the next statement and before the commit."""
        if self._session is None:
            self._session = AsyncSession(self._connection.for_session(), expire_on_commit=False)
        return self._session

    async def begin(self, access: Access | None = None) -> None:
        """Begin a transaction, with this access to rows."""
        statement = "begin" if access is None else f"begin; {access.statement}"
        await self._ask(self._driver.execute(statement), "begin")

    async def commit(self) -> None:
        """Commit it.

        Raises:
            DBAPIError: it was not committed, or the outcome is unknown.
        """
        if self._session is not None:
            await self._session.flush()
        if await self._ask(self._driver.execute("commit"), "commit") != "COMMIT":
            raise OperationalError("commit", None, RuntimeError("an error in the transaction was not noticed"))

    async def undo(self) -> None:
        """Roll back. If that fails, close the connection, so that the server rolls back."""
        undone = False
        try:
            async with asyncio.timeout(_UNDO_SECONDS):
                await self._driver.execute("rollback")
            undone = True
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pass  # another error is on its way
        finally:
            if not undone:
                await self._connection.invalidate()

    async def close(self) -> None:
        """Close the session, if there is one."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, answer: Any, sql: str) -> Any:
        try:
            return await answer
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
            kind = next((ours for theirs, ours in _ERRORS if isinstance(error, theirs)), OperationalError)
            raise kind(sql, None, error, hide_parameters=True) from error


@asynccontextmanager
async def savepoint(tx: Transaction) -> AsyncIterator[None]:
    """What the block has written is taken back if it fails; the transaction can go on."""
    async with tx.session.begin_nested():
        yield


@asynccontextmanager
async def transaction(sessions: Sessions) -> AsyncIterator[Transaction]:
    """One transaction, committed at the end of the block, rolled back at an error."""
    async with _connection(sessions) as tx:
        committed = False
        try:
            await tx.begin(sessions.access)
            yield tx
            await tx.commit()
            committed = True
            sessions.nudges.add(tx.nudged)
        finally:
            if not committed:
                await tx.undo()


@asynccontextmanager
async def request_transaction(sessions: Sessions) -> AsyncIterator[Transaction]:
    """Like `transaction`, but report a database that can't be used as a domain error.

    Do nothing but database work in the block: every other `OSError` would be reported as the database.

    Raises:
        DatabaseUnavailable: it does not answer, or `cofounder migrate` was not run.
    """
    try:
        async with transaction(sessions) as tx:
            yield tx
    except ProgrammingError as error:
        cause = error.orig
        if not isinstance(getattr(cause, "__cause__", None) or cause, asyncpg.UndefinedTableError):
            raise
        detail = "The database has no tables yet. Run `cofounder migrate` on the machine of the API."
        raise DatabaseUnavailable(detail) from error
    # A bare asyncpg error comes from connecting; from queries it arrives wrapped.
    except (OSError, SQLAlchemyError, asyncpg.PostgresError) as error:
        if not is_outage(error) and not (isinstance(error, DBAPIError) and error.connection_invalidated):
            raise
        detail = "The database does not answer, so nothing was stored. Try again in a minute."
        raise DatabaseUnavailable(detail, 10) from error


@asynccontextmanager
async def seeing_every_row(tx: Transaction) -> AsyncIterator[None]:
    """Let the statements of the block see all users' rows, for what users share, in the transaction that is there.

    A second transaction would need a second connection while this one is held: many requests at once would wait for
    each other's.
    """
    setting = text("select set_config('app.every_row', :value, true)")
    before = await tx.session.scalar(text("select coalesce(current_setting('app.every_row', true), '')"))
    await tx.session.execute(setting, {"value": "on"})
    yield
    await tx.session.execute(setting, {"value": before})  # after an error, the transaction ends anyway


@asynccontextmanager
async def autocommit(sessions: Sessions) -> AsyncIterator[Transaction]:
    """A connection for a single statement, which is a transaction by itself: BEGIN and COMMIT need not be sent.

    With an access to rows it is a transaction all the same.
    """
    if sessions.access is not None:
        async with transaction(sessions) as tx:
            yield tx
        return
    async with _connection(sessions) as tx:
        yield tx
        sessions.nudges.add(tx.nudged)


@asynccontextmanager
async def _connection(sessions: Sessions) -> AsyncIterator[Transaction]:
    connection = await PooledConnection.open(sessions.statements)
    try:
        tx = Transaction(connection, sessions.author)
        try:
            yield tx
        finally:
            await tx.close()
    finally:
        await connection.close()


@dataclass(frozen=True)
class _Compiled:
    sql: str
    parameters: Sequence[tuple[str, Callable[[Any], Any] | None]]
    """Names in the driver's order, each with the function that converts a value for the driver."""


@lru_cache(maxsize=256)
def _compiled(statement: TextClause) -> _Compiled:
    compiled = statement.compile(dialect=_DIALECT)
    names = compiled.positiontup or ()
    kinds = {name: compiled.binds[name].type.dialect_impl(_DIALECT) for name in names}
    return _Compiled(compiled.string, [(name, kinds[name].bind_processor(_DIALECT)) for name in names])
