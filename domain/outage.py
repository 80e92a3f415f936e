"""Waiting for a dependency that does not answer: how long, and what founders read meanwhile. Pure."""

from collections.abc import Mapping
from datetime import timedelta

from domain.status import Dependency

FIRST_WAIT = timedelta(seconds=30)
"""A build that finds a dependency away tries again after this long. Each next wait is twice as long."""

LONGEST_WAIT = timedelta(minutes=5)
"""The longest wait between two attempts. A signal that the dependency is back ends it earlier."""

LATEST_RETRY = timedelta(minutes=1)
"""After an outage no build waits longer than the outage has lasted plus this."""

_JITTER = 0.3
"""The share of a wait that varies, so that builds that began to wait together do not all try together."""

REASONS: Mapping[Dependency, str] = {
    Dependency.STORE: (
        "The service that stores your work does not answer. Your build continues by itself when it is back."
    ),
    Dependency.SANDBOX: (
        "The service that runs your build's computer does not answer. Your build continues by itself when it is back."
    ),
    Dependency.MODEL: "The AI model does not answer. Your build continues by itself when it is back.",
    Dependency.CAPACITY: (
        "All of the computers that builds run on are in use. Your build continues by itself as soon as one is free."
    ),
}
"""What founders read while their build waits."""


def wait_before_retry(waits: int, lasted: timedelta, fraction: float) -> timedelta:
    """Return how long to wait before the next attempt.

    Args:
        waits: how often the build has waited before, in this outage.
        lasted: how long the outage has lasted for this build.
        fraction: a random number from 0 to 1.
    """
    doubled: timedelta = FIRST_WAIT * 2 ** min(waits, 10)
    longest = min(doubled, LONGEST_WAIT, lasted + LATEST_RETRY)
    return longest * (1 - _JITTER * fraction)
