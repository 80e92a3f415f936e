"""This attempt's hold on the workspace of a sandbox; see `clients/workspace_hold.py`."""

from temporalio import activity

from clients.sandbox import Sandbox
from clients.workspace_hold import WorkspaceHold


async def take_hold(sandbox: Sandbox) -> WorkspaceHold:
    """Hold the workspace for this attempt of an activity.

    Raises:
        StaleClaim: an attempt that was scheduled later holds it.
    """
    return await WorkspaceHold.take(sandbox, activity.info().current_attempt_scheduled_time.timestamp())
