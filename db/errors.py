"""Which of the database's errors mean that it is away, and which that it refuses what it was asked."""

import socket

import asyncpg
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

_REFUSALS = frozenset({"0A", "21", "22", "23", "27", "2F", "38", "39", "42", "44", "P0"})
"""Classes of SQLSTATE (PostgreSQL's documentation, appendix A) that say that a statement, its values or a trigger are
wrong. Another attempt fails in the same way. Of all others it may succeed: the server shuts down, refuses connections,
is a standby, is out of memory or disk space, or has ended a statement that waited for too long."""


def is_outage(error: BaseException) -> bool:
    """Whether the database is away, so that the same request may succeed once it is back."""
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror | PoolTimeout):
        return True
    if type(error) is OSError:
        return True  # asyncio's "Multiple exceptions", when it has tried several addresses
    if (state := sqlstate(error)) is not None:
        return state[:2] not in _REFUSALS
    return isinstance(error, DBAPIError) and not isinstance(error, IntegrityError | DataError | ProgrammingError)


def sqlstate(error: BaseException) -> str | None:
    """The code of what the server has said, which SQLAlchemy wraps once or twice; None if it has said nothing."""
    cause: BaseException | None = error.orig if isinstance(error, DBAPIError) else error
    for each in (cause, None if cause is None else cause.__cause__):
        if isinstance(each, asyncpg.PostgresError):
            state: str | None = each.sqlstate
            return state
    return None
