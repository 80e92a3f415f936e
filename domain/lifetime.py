"""How long a sandbox may run: a provider ends each one after a fixed time, even if it is busy."""

from datetime import datetime, timedelta

SNAPSHOT_SECONDS = 300
"""Seconds reserved for a snapshot of the workspace, in addition to the longest call that may run before it."""


def is_near_its_end(
    opened_at: datetime | None, now: datetime, max_seconds: int | None, longest_call_seconds: int
) -> bool:
    """Whether the sandbox must be replaced now: a call that starts later could be cut off.

    Args:
        opened_at: since when it has run without a pause; None if unknown.
        now: the workflow's time.
        max_seconds: the provider's cap; None without a cap.
        longest_call_seconds: how long a single call may run.
    """
    if opened_at is None or max_seconds is None:
        return False
    # If the cap is so low that little would be left of it, use half of it.
    spare = min(longest_call_seconds + SNAPSHOT_SECONDS, max_seconds // 2)
    return now >= opened_at + timedelta(seconds=max_seconds - spare)
