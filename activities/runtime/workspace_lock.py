"""The workspace lock for this attempt of an activity; see `clients/workspace_lock.py`."""

from temporalio import activity

from clients.sandbox import Sandbox
from clients.workspace_lock import WorkspaceLock


async def lock_workspace(sandbox: Sandbox) -> WorkspaceLock:
    """Acquire the workspace lock for this attempt of an activity.

    Raises:
        StaleClaim: an attempt that was scheduled later holds it.
    """
    return await WorkspaceLock.acquire(sandbox, activity.info().current_attempt_scheduled_time.timestamp())
