"""The workspace lock for this attempt of an activity; see `clients/workspace_lock.py`."""

from temporalio import activity

from clients.sandbox import Sandbox
from clients.workspace_lock import WorkspaceLock


async def lock_workspace(sandbox: Sandbox, command: str = "") -> WorkspaceLock:
    """Acquire the workspace lock for this attempt of an activity, and run a command under it, if one is given.

    Raises:
        StaleClaim: an attempt that was scheduled later holds it.
        SandboxUnavailable: the command failed.
    """
    return await WorkspaceLock.acquire(sandbox, activity.info().current_attempt_scheduled_time.timestamp(), command)
