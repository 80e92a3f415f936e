"""Pause the reaper and let it go on. The pause is the schedule's in Temporal, and no start of a worker ends it."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from temporalio.service import RPCError

from clients.fleet_workflows import FleetWorkflows
from db.session import Sessions
from db.transaction import request_transaction
from domain.audit import Action
from domain.errors import TemporalUnavailable
from services.audit import record


async def pause_reaper(sessions: Sessions, workflows: FleetWorkflows, reason: str) -> None:
    """Let the reaper start no more runs, until `resume_reaper`. The schedule's note says who paused it, when, and why.

    Raises:
        NotFound: there is no reaper yet.
        DependencyUnavailable: nothing was changed.
    """
    await _change(sessions, Action.REAPER_PAUSE, workflows.pause_reaper, reason)


async def resume_reaper(sessions: Sessions, workflows: FleetWorkflows) -> None:
    """Let the reaper run again.

    Raises:
        NotFound, DependencyUnavailable: as `pause_reaper`.
    """
    await _change(sessions, Action.REAPER_RESUME, workflows.resume_reaper, "Resumed")


async def _change(sessions: Sessions, action: Action, change: Callable[[str], Awaitable[None]], what: str) -> None:
    async with request_transaction(sessions) as tx:
        await record(tx, action)
        by = "unknown" if tx.author is None else tx.author.name
        try:
            await change(f"{what} ({by}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC)")
        except (RPCError, RuntimeError) as error:
            raise TemporalUnavailable from error
