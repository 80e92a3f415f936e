"""The states of a build, and which may follow which."""

from enum import StrEnum


class Status(StrEnum):
    """The state of a build."""

    QUEUED = "queued"
    STARTING = "starting"
    SCAFFOLD = "scaffold"
    CODE = "code"
    CHECKS = "checks"
    READY = "ready"
    SLEEPING = "sleeping"
    NEEDS_INPUT = "needs_input"
    FAILED = "failed"
    CANCELLED = "cancelled"


class WaitingFor(StrEnum):
    """Who or what can end a `needs_input`."""

    FOUNDER = "founder"
    OPERATOR = "operator"
    STORE = "store"
    KILL_SWITCH = "kill_switch"


class SleepPolicy(StrEnum):
    """What a build does once the day's budget is used up."""

    SLEEP = "sleep"
    """Sleep until the next UTC day, or until it is woken."""
    STOP = "stop"
    """Fail, with its work snapshotted."""


MAX_NIGHTS = 30
"""Ask the founder whether to continue after a build has slept this many nights. A build may set another number."""

CLOSED = frozenset({Status.READY, Status.FAILED, Status.CANCELLED})
"""A build in one of these has ended."""

WORKING = frozenset({Status.STARTING, Status.SCAFFOLD, Status.CODE, Status.CHECKS})

_NEXT: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.QUEUED, Status.STARTING}),
    Status.STARTING: frozenset({Status.SCAFFOLD}),
    Status.SCAFFOLD: frozenset({Status.CODE, Status.CHECKS}),
    Status.CODE: frozenset({Status.CHECKS}),
    Status.CHECKS: frozenset({Status.READY, Status.CODE, Status.SCAFFOLD}),
    Status.SLEEPING: WORKING,
    Status.NEEDS_INPUT: WORKING,
}
_FROM_ANY_OPEN = frozenset({Status.SLEEPING, Status.NEEDS_INPUT, Status.FAILED, Status.CANCELLED})


def may_follow(now: Status, then: Status) -> bool:
    """Whether a build in `now` may become `then`."""
    return now not in CLOSED and (then in _FROM_ANY_OPEN or then in _NEXT[now])
