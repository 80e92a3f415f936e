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
