"""The states of a build. Their order is what `workflows/build.py` does."""

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
    WAITING = "waiting"
    """A dependency does not answer, or has no room. The build tries again by itself."""
    NEEDS_INPUT = "needs_input"
    FAILED = "failed"
    CANCELLED = "cancelled"


class WaitingFor(StrEnum):
    """Who or what can end a `needs_input`."""

    FOUNDER = "founder"
    OPERATOR = "operator"
    STORE = "store"
    KILL_SWITCH = "kill_switch"


class Dependency(StrEnum):
    """What a `waiting` build waits for. It needs no person."""

    STORE = "store"
    """The object store."""
    SANDBOX = "sandbox"
    """The sandbox service."""
    MODEL = "model"
    """The model's API."""
    CAPACITY = "capacity"
    """A permit to have a sandbox running."""


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

WAITS = frozenset({Status.SLEEPING, Status.WAITING, Status.NEEDS_INPUT})
"""A build in one of these makes no call and keeps its slot."""
