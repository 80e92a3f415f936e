"""Roles of workers: which kinds of work a worker takes, and the task queue of each."""

from collections.abc import Sequence
from enum import StrEnum


class WorkerRole(StrEnum):
    """A kind of work."""

    BUILD = "build"
    """Workflows, model calls, tool calls, short steps in the database, and all work without a queue of its own."""
    ARCHIVE = "archive"
    """Opening, verifying, restoring and snapshotting workspaces: archives take memory and bandwidth."""
    BROWSER = "browser"
    """Evidence gates and the tools that look at pages: Chromium."""


SEPARABLE = (WorkerRole.ARCHIVE, WorkerRole.BROWSER)
"""Roles whose work can have a task queue of its own."""


def parse_roles(text: str) -> list[WorkerRole]:
    """Parse names of roles, separated by commas; returns each once, in the order of `WorkerRole`.

    Raises:
        ValueError: a name is not a role.
    """
    names = {name.strip() for name in text.split(",") if name.strip()}
    if unknown := sorted(names - set(WorkerRole)):
        raise ValueError(f"{unknown[0]} is not a role; choose from {', '.join(WorkerRole)}")
    return [role for role in WorkerRole if role in names]


def parse_separate_roles(text: str | None) -> str | None:
    """Check names of roles whose work is to have a task queue of its own; returns them as they are stored. None: none.

    Raises:
        ValueError: a name is not such a role.
    """
    roles = parse_roles(text or "")
    if WorkerRole.BUILD in roles:
        raise ValueError(f"{WorkerRole.BUILD} is the role of TEMPORAL_TASK_QUEUE itself; name {' or '.join(SEPARABLE)}")
    return ",".join(roles) or None


def separate_roles(stored: str | None) -> Sequence[WorkerRole]:
    """The roles in what `parse_separate_roles` returned. Those of a newer version are left out."""
    names = (stored or "").split(",")
    return [role for role in SEPARABLE if role in names]


def needed_roles(stored: str | None) -> Sequence[WorkerRole]:
    """The roles that workers must have, if new builds have these separate roles."""
    return [WorkerRole.BUILD, *separate_roles(stored)]


def queue_of(task_queue: str, role: WorkerRole) -> str:
    """The task queue of a role's work.

    Args:
        task_queue: that of workflows, TEMPORAL_TASK_QUEUE.
    """
    return task_queue if role is WorkerRole.BUILD else f"{task_queue}-{role}"


def polled_roles(named: Sequence[WorkerRole] | None, separate: str | None) -> Sequence[WorkerRole]:
    """The roles whose task queues a worker polls.

    Args:
        named: WORKER_ROLES. None if the worker takes all work.
        separate: SEPARATE_ROLES.
    """
    return needed_roles(separate) if named is None else list(named)
