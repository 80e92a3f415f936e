"""The states of a build and the order in which they may follow each other."""

from enum import StrEnum


class Status(StrEnum):
    """Where a build stands."""

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
    """Who can end a `needs_input`."""

    FOUNDER = "founder"
    OPERATOR = "operator"
    STORE = "store"
    KILL_SWITCH = "kill_switch"


class SleepPolicy(StrEnum):
    """What a build does when the day's budget is used up."""

    SLEEP = "sleep"
    """Sleep until the next UTC day, or until it is woken."""
    STOP = "stop"
    """Fail, with its work snapshotted."""


MAX_NIGHTS = 30
"""So many nights a build sleeps before its founder is asked whether it should go on, unless said otherwise."""

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
