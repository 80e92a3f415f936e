"""Waiting for a permit to have a sandbox running: how long between two checks, and what founders read. Pure."""

from datetime import timedelta

CHECK_EVERY = timedelta(minutes=5)
"""The longest time between two checks of a build in the queue; well below the time after which its place is skipped.
A signal that a permit is free ends it earlier."""

CHECK_RARELY = timedelta(hours=1)
"""The longest time between two checks of a build whose history has become long, as each check adds to it."""

FIRST_RETRY = timedelta(seconds=20)
"""After a refusal of the sandbox service, check after this long; each next time after twice as long."""

_JITTER = 0.3
"""The share of a wait that varies, so that builds that began to wait together do not all check together."""

PREVIEW_CLOSED = (
    "Builds waited for a free sandbox, so your preview was closed early. Nothing is lost: open it again at any time."
)
"""What a founder reads when their preview has made room for a build."""

PREVIEW_NOT_OPENED = "No sandbox became free in time, so your preview was not opened. Open it again later."
"""What a founder reads when their preview has waited for all of the time that it was to be open."""


def reason_to_wait(ahead: int, what: str = "build", *, refused: bool = False) -> str:
    """Return what founders read while their build or preview waits. `ahead`: how many come first."""
    if refused:
        return f"Your {what} waits for a free sandbox: the sandbox service has no room. It continues by itself."
    if ahead == 0:
        return f"Your {what} waits for a free sandbox, and is next. It continues by itself."
    others = "1 build is" if ahead == 1 else f"{ahead} builds are"
    return f"Your {what} waits for a free sandbox: {others} ahead. It continues by itself."


def time_to_next_check(refusals: int, fraction: float, longest: timedelta = CHECK_EVERY) -> timedelta:
    """Return how long to wait for a signal before the next check.

    Args:
        refusals: how often the sandbox service has refused the build in a row.
        fraction: a random number from 0 to 1.
        longest: no wait is longer than this.
    """
    moment: timedelta = longest if refusals == 0 else min(longest, FIRST_RETRY * 2 ** min(refusals - 1, 10))
    return moment * (1 - _JITTER * fraction)
