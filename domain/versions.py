"""Versions of the workers, and when all builds of the old ones have moved to the new one."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

UNVERSIONED = "unversioned"
"""Stands for workers without a version."""


class VersionState(StrEnum):
    """What Temporal does with a version of the workers."""

    CURRENT = "current"
    """New work goes to it."""
    RAMPING = "ramping"
    """A part of the new work goes to it."""
    DRAINING = "draining"
    """It gets no new work and has some left."""
    DRAINED = "drained"
    """It has no work left, and its record can be deleted."""
    INACTIVE = "inactive"
    """It has never had work."""


@dataclass(frozen=True)
class DeploymentVersion:
    """A version of the workers."""

    build_id: str
    state: VersionState


def to_delete(versions: Collection[DeploymentVersion], running: Mapping[str, int]) -> list[str]:
    """The versions whose records can be deleted: Temporal keeps 100, and a deployment beyond that can't start."""
    return [each.build_id for each in versions if each.state is VersionState.DRAINED and not running.get(each.build_id)]
