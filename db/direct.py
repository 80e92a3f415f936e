"""The statements of every turn, past SQLAlchemy: compiled by it once, and run by the driver.

A build's turn makes two dozen statements, and SQLAlchemy's session takes several times as long over one as the driver.
So what happens in every turn is written in SQL and runs here; what happens now and then takes the ORM, in the same
transaction if it must (`orm`). Connections are the engine's, from the same pool.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import asyncpg
from sqlalchemy import Dialect, TextClause
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    MultipleResultsFound,
    NoResultFound,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from db.session import Sessions

_DIALECT: Dialect = asyncpg_dialect()  # type: ignore[no-untyped-call]

_UNDO_SECONDS = 5.0

_ERRORS: Sequence[tuple[type[Exception], type[DBAPIError]]] = (
    (asyncpg.IntegrityConstraintViolationError, IntegrityError),
    (asyncpg.DataError, DataError),
    (asyncpg.SyntaxOrAccessError, ProgrammingError),
)
"""As SQLAlchemy tells them; all others are the server's or the connection's."""


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


class DirectConnection:
    """A connection whose statements go to the driver. Made by `transaction` and `one_statement`."""

    def __init__(self, connection: AsyncConnection, driver: asyncpg.Connection) -> None:
        self._connection = connection
        self._driver = driver
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

    def orm(self) -> AsyncSession:
        """A session on this connection, in its transaction; what it has to write goes before the next statement."""
        if self._session is None:
            self._session = AsyncSession(self._connection, expire_on_commit=False)
        return self._session

    async def begin(self) -> None:
        """Begin a transaction."""
        await self._ask(self._driver.execute("begin"), "begin")

    async def commit(self) -> None:
        """Commit it.

        Raises:
            DBAPIError: it was not committed, or nobody knows.
        """
        if self._session is not None:
            await self._session.flush()
        if await self._ask(self._driver.execute("commit"), "commit") != "COMMIT":
            raise OperationalError("commit", None, RuntimeError("an error in the transaction was not noticed"))

    async def undo(self) -> None:
        """Roll back; a connection that can't be, is closed, and the server rolls back."""
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
        """Let go of the session, if there is one."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, answer: Any, sql: str) -> Any:
        try:
            return await answer
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
            kind = next((ours for theirs, ours in _ERRORS if isinstance(error, theirs)), OperationalError)
            raise kind(sql, None, error, hide_parameters=True) from error


Runs = AsyncSession | DirectConnection
"""What runs a statement of `text`."""


def orm(runs: Runs) -> AsyncSession:
    """A session for what is not a statement of every turn, in the same transaction."""
    return runs if isinstance(runs, AsyncSession) else runs.orm()


@asynccontextmanager
async def transaction(sessions: Sessions) -> AsyncIterator[DirectConnection]:
    """One transaction, committed at the end of the block, rolled back at an error."""
    async with one_statement(sessions) as direct:
        committed = False
        try:
            await direct.begin()
            yield direct
            await direct.commit()
            committed = True
        finally:
            if not committed:
                await direct.undo()


@asynccontextmanager
async def one_statement(sessions: Sessions) -> AsyncIterator[DirectConnection]:
    """For a single statement. It is a transaction by itself, so that BEGIN and COMMIT need not be sent."""
    async with sessions.statements.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        direct = DirectConnection(connection, driver)
        try:
            yield direct
        finally:
            await direct.close()


@dataclass(frozen=True)
class _Compiled:
    sql: str
    parameters: Sequence[tuple[str, Callable[[Any], Any] | None]]
    """Their names, in the order in which the driver takes them, and what turns a value into the driver's."""


@lru_cache(maxsize=256)
def _compiled(statement: TextClause) -> _Compiled:
    compiled = statement.compile(dialect=_DIALECT)
    names = compiled.positiontup or ()
    kinds = {name: compiled.binds[name].type.dialect_impl(_DIALECT) for name in names}
    return _Compiled(compiled.string, [(name, kinds[name].bind_processor(_DIALECT)) for name in names])
