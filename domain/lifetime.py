"""How long a sandbox may run: a provider ends each one after a time, whatever it does."""

from datetime import datetime, timedelta

SNAPSHOT_SECONDS = 300
"""How long a snapshot of the workspace may take, beside the longest call that may begin before it."""


def is_near_its_end(
    opened_at: datetime | None, now: datetime, max_seconds: int | None, longest_call_seconds: int
) -> bool:
    """Whether the sandbox has to be replaced now: a call that begins later might be cut off.

    Args:
        opened_at: since when it runs without a pause; None where that is not known.
        now: the workflow's time.
        max_seconds: the provider's cap; None where there is none.
        longest_call_seconds: how long a single call may run.
    """
    if opened_at is None or max_seconds is None:
        return False
    # A cap so low that little would be left of it is used to its half.
    spare = min(longest_call_seconds + SNAPSHOT_SECONDS, max_seconds // 2)
    return now >= opened_at + timedelta(seconds=max_seconds - spare)
