"""Notify workflows of committed changes: of a user's budget, and of what a founder has asked of a build.

The row is the truth and the signal only a nudge: it may get lost or arrive twice. The reaper repeats what no workflow
has received.
"""

import asyncio
import uuid
from datetime import UTC, datetime

import structlog
from temporalio.service import RPCError

from clients.build_workflows import BuildWorkflows
from db import money, steering
from db.models import Build
from db.session import Sessions
from db.transaction import transaction
from domain.errors import NotFound
from domain.payloads import PendingInput
from services.builds import start_if_unstarted

log = structlog.get_logger(__name__)


# ---- budgets


async def notify_budget_changed(sessions: Sessions, workflows: BuildWorkflows, user_id: str) -> list[uuid.UUID]:
    """Notify the user's open builds of a committed change of budget or standing; returns those that received it.

    A build whose workflow is not found stays unnotified: it may be in another namespace.

    Raises:
        RPCError, RuntimeError: Temporal did not take it.
    """
    async with transaction(sessions) as tx:
        since = await money.last_change(tx, user_id)
        open_builds = await money.open_builds_of(tx, user_id)
    notified: list[uuid.UUID] = []

    async def notify(build_id: uuid.UUID) -> None:
        try:
            await workflows.signal_budget_changed(build_id)
        except NotFound as error:
            log.info("a build did not receive the change of its budget", build_id=str(build_id), error=error)
        else:
            notified.append(build_id)

    try:
        await asyncio.gather(*map(notify, open_builds))
    finally:
        async with transaction(sessions) as tx:
            await money.mark_notified(tx, notified, since)
    return notified


async def repeat_budget_notification(
    sessions: Sessions, workflows: BuildWorkflows, missed: money.MissedNotification
) -> None:
    """Notify one build of the change that it has not received yet.

    Raises:
        NotFound, RPCError: it was not delivered.
    """
    await workflows.signal_budget_changed(missed.build_id)
    async with transaction(sessions) as tx:
        await money.mark_notified(tx, [missed.build_id], missed.since)


async def notify_released(sessions: Sessions, workflows: BuildWorkflows, *, autonomous_agent: bool) -> list[uuid.UUID]:
    """Notify the builds that waited for a switch or a limit which an operator has changed.

    The reaper repeats what fails.

    Args:
        autonomous_agent: False while AUTONOMOUS_AGENT holds all builds, whatever the switches say.

    Returns:
        The builds that received it.
    """
    async with transaction(sessions) as tx:
        missed = await money.missed_notifications(tx, datetime.now(UTC), switched_on=autonomous_agent)
    notified: list[uuid.UUID] = []
    for each in missed:
        try:
            await repeat_budget_notification(sessions, workflows, each)
            notified.append(each.build_id)
        except (NotFound, RPCError, RuntimeError) as error:
            log.info("a build did not receive a change", build_id=str(each.build_id), error=error)
    return notified


# ---- founders' input


async def notify_of_input(sessions: Sessions, workflows: BuildWorkflows, build: Build, pending: PendingInput) -> None:
    """Notify a build of a committed message or restore; start its workflow first if a crash left it without one.

    The reaper repeats a signal that fails.

    Raises:
        DatabaseUnavailable: the build had no workflow, and its project could not be read.
    """
    await start_if_unstarted(sessions, workflows, build)
    try:
        await _signal_input(workflows, build.id, pending)
    except (NotFound, RPCError, RuntimeError) as error:
        log.warning("the reaper will notify the build of its founder's input", build_id=str(build.id), error=error)


async def repeat_input_notification(
    sessions: Sessions, workflows: BuildWorkflows, build_id: uuid.UUID, pending: PendingInput
) -> None:
    """Notify a build once more of messages that it has not read and a restore that it has not carried out.

    Raises:
        NotFound, RPCError: it was not delivered.
    """
    await _signal_input(workflows, build_id, pending)
    async with transaction(sessions) as tx:
        await steering.mark_notified(tx, build_id, pending)


async def _signal_input(workflows: BuildWorkflows, build_id: uuid.UUID, pending: PendingInput) -> None:
    if pending.message:
        await workflows.signal_message(build_id, pending.message)
    if pending.restore:
        await workflows.signal_restore(build_id, pending.restore)
