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

LONGEST_WAIT_WHEN_LONG = timedelta(hours=1)
"""The longest wait of a build whose history has become long and that can't continue as new at this step, and of a build
that has ended and only saves its work. A signal ends it earlier, too."""

PAUSE_AFTER = timedelta(minutes=10)
"""Pause the build's sandbox once a wait for the store or the model has lasted this long: it costs money."""

SAVE_WITHIN = timedelta(days=1)
"""A build that ends tries for this long to save its last work and to release its sandbox."""

ASK_AFTER = timedelta(days=1)
"""If a dependency answers its probes but has failed a build for this long, ask an operator: it is not away."""

FIRST_PROBE_WAIT = timedelta(seconds=15)
"""A dependency that is down is probed after this long. Each next wait is twice as long, up to `LONGEST_WAIT`."""

PROBER_IS_LATE = timedelta(minutes=2)
"""If a probe is overdue by this long, the prober does not run, and what it knows counts for nothing."""

HALF_OPEN_FOR = timedelta(minutes=5)
"""A dependency that answers is half open for this long: waiting builds are told to go on, and a failure closes it."""

FIRST_RAMP = 10
"""Builds a second that are told to go on at first. Each run of the prober doubles it."""

MOST_RAMP = 160
"""The most builds a second that are told to go on."""

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

REASONS_AT_THE_END: Mapping[Dependency, str] = {
    Dependency.STORE: (
        "Your build has ended, but the service that stores your work does not answer. The last work is stored when it "
        "is back, within a day."
    ),
    Dependency.SANDBOX: (
        "Your build has ended, but the service that runs its computer does not answer. The last work is stored when it "
        "is back, within a day."
    ),
}
"""What founders read while their build waits to save its last work."""

PREVIEW_WAITS = "A service that your preview needs does not answer. It opens by itself when the service is back."
"""What a founder reads while their preview waits."""

PREVIEW_NOT_OPENED_IN_TIME = (
    "A service that your preview needs did not answer in time, so it was not opened. Nothing is lost: open it again."
)
"""What a founder reads when an outage has outlasted the time that their preview was to be open."""


def wait_before_retry(waits: int, lasted: timedelta, fraction: float, longest: timedelta = LONGEST_WAIT) -> timedelta:
    """Return how long to wait before the next attempt.

    Args:
        waits: how often the build has waited before, in this outage.
        lasted: how long the outage has lasted for this build.
        fraction: a random number from 0 to 1.
        longest: no wait is longer than this.
    """
    doubled: timedelta = FIRST_WAIT * 2 ** min(waits, 10)
    return min(doubled, longest, lasted + LATEST_RETRY) * (1 - _JITTER * fraction)


def probe_wait(failures: int) -> timedelta:
    """Return how long to wait before a dependency is probed, `failures` probes in a row had no answer."""
    doubled: timedelta = FIRST_PROBE_WAIT * 2 ** min(failures, 10)
    return min(doubled, LONGEST_WAIT)


def builds_a_second(half_open_for: timedelta) -> int:
    """Return how many waiting builds a second are told to go on, by how long the dependency has answered."""
    doublings = max(0, int(half_open_for / FIRST_PROBE_WAIT))
    rate: int = FIRST_RAMP * 2 ** min(doublings, 10)
    return min(rate, MOST_RAMP)
