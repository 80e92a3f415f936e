"""Limits of the whole service that operators set while everything runs."""

from enum import StrEnum


class LimitName(StrEnum):
    """The limits there are."""

    FLEET_DAY = "fleet_day"
    """µ$ that all builds together may spend and reserve in a UTC day."""


FLEET_LIMIT_REACHED = (
    "This service has used up its own limit for today: that is not your budget, which is untouched. Your build's work "
    "is kept, and it continues by itself tomorrow, or as soon as the operator raises the limit."
)
"""The reason of a build that sleeps because of `LimitName.FLEET_DAY`. Builds that sleep with it are notified when the
limit is changed."""


def sandbox_time_used_up(hours: float) -> str:
    """Return the reason of a build that sleeps because a sandbox has run for it this long today."""
    return (
        f"This build's commands have used today's {hours:g} hours of sandbox time: that is a limit of the service, not "
        "your budget. Its work is kept, and it continues by itself tomorrow."
    )
