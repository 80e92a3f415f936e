"""A process says that it runs and what it reads, and stops when it can't read what is stored."""

import asyncio
import contextlib
import importlib.metadata
import uuid
from collections.abc import Callable, Sequence

import structlog
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError

from db import formats
from db.session import LISTENERS, Sessions, unusable
from db.transaction import transaction
from domain.errors import Misconfigured, WrongVersion
from domain.formats import SCHEMA, Format, unreadable
from domain.worker_roles import WorkerRole

BEAT_SECONDS = 30.0
"""Seconds between two announcements of a process."""

SILENT_SECONDS = 300.0
"""A process that has not tried to announce itself for this long hangs. If the database is away, a try fails sooner."""

_FORGET_SECONDS = 2.0
"""A process that ends waits at most this long for its row to go."""

log = structlog.get_logger(__name__)


async def check_formats(sessions: Sessions) -> None:
    """Refuse to work with what this program can't read.

    Raises:
        WrongVersion: says what to do.
        Misconfigured: the database does not answer.
    """
    try:
        async with transaction(sessions) as tx:
            stored = await formats.read_formats(tx)
    except ProgrammingError:
        stored = [Format(SCHEMA, 0, 0)]  # migrated by a version without formats, or not at all
    except (OSError, SQLAlchemyError) as error:
        raise unusable(error) from error
    if problem := unreadable(formats.own_formats(), stored):
        raise WrongVersion(problem)


class Presence:
    """This process among those that share the database."""

    def __init__(self, sessions: Sessions, role: str, pool: int, roles: Sequence[WorkerRole] = ()) -> None:
        """
        Args:
            role: `worker` or `api`.
            pool: connections to the database that the process opens at most for its transactions.
            roles: whose task queues it polls, if it is a worker.
        """
        self._sessions = sessions
        version = importlib.metadata.version("cofounder")
        self._process = formats.ThisProcess(uuid.uuid4(), role, version, pool + LISTENERS, roles)

    async def keep(self, stop: Callable[[WrongVersion], None], note: Callable[[], None] = lambda: None) -> None:
        """Announce the process until this is cancelled, or until it can't read what is stored; then call `stop`.

        Args:
            note: called before each announcement, also while the database is away.
        """
        has_warned = False
        try:
            while True:
                note()
                try:
                    await check_formats(self._sessions)
                    async with transaction(self._sessions) as tx:
                        await formats.announce(tx, self._process)
                    has_warned = False
                except WrongVersion as problem:
                    log.error("this program can't read what is stored", reason=problem)
                    return stop(problem)
                except (Misconfigured, OSError, SQLAlchemyError) as error:
                    if not has_warned:
                        log.warning("the process could not be announced", error=error)
                    has_warned = True
                await asyncio.sleep(BEAT_SECONDS)
        finally:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_FORGET_SECONDS), transaction(self._sessions) as tx:
                    await formats.forget(tx, self._process.id)
