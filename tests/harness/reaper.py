"""Runs the reaper in tests, as its schedule does."""

import uuid
from collections.abc import Awaitable, Callable

from sqlalchemy import delete

from db.models import ReaperStep
from db.session import Sessions
from db.transaction import transaction
from domain.names import REAPER_WORKFLOW
from tests.harness.wait import wait_until
from tests.harness.worker import WorkerHarness


async def forget_cursors(sessions: Sessions) -> None:
    """Let the reaper's next look compare all rows with what runs."""
    async with transaction(sessions) as tx:
        await tx.session.execute(delete(ReaperStep).where(ReaperStep.step.startswith("builds")))


async def reap(harness: WorkerHarness, *, everything: bool = False) -> str:
    """Run the reaper once and return the id of its workflow.

    `everything`: compare all rows with what runs, as once an hour, instead of reading what has ended lately.
    """
    if everything:
        await forget_cursors(harness.sessions)
    workflow_id = f"reap-{uuid.uuid4()}"
    queue = harness.settings.temporal_task_queue
    await harness.client.execute_workflow(REAPER_WORKFLOW, id=workflow_id, task_queue=queue)
    return workflow_id


async def reap_until(
    harness: WorkerHarness, condition: Callable[[], Awaitable[bool]], *, everything: bool = False
) -> str:
    """Run the reaper until the condition holds, and return the id of its last workflow.

    Temporal may list a workflow as ended only a moment after it has.

    `everything`: let the first look compare all rows. Only the next ones list what has ended since.
    """
    last = ""

    async def look() -> bool:
        nonlocal last
        last = await reap(harness, everything=everything and not last)
        return await condition()

    await wait_until(look)
    return last
