"""Offer a user's free slots to the builds that are queued for one."""

import structlog
from temporalio.service import RPCError

from clients.build_workflows import BuildWorkflows
from db import slots
from db.session import Sessions
from db.transaction import transaction
from domain.errors import NotFound

log = structlog.get_logger(__name__)


async def nudge_queued_builds(sessions: Sessions, workflows: BuildWorkflows, user_id: str) -> int:
    """Nudge the user's builds that are next in the queue to claim a slot; returns how many received it.

    The reaper repeats the nudge, and a queued build looks by itself every hour.
    """
    async with transaction(sessions) as tx:
        queued = await slots.builds_next_in_queue(tx, user_id)
    nudged = 0
    for build_id in queued:
        try:
            await workflows.admit(build_id)
            nudged += 1
        except (NotFound, RPCError) as error:
            log.info("a queued build could not be nudged to claim its slot", build_id=str(build_id), error=error)
    return nudged
