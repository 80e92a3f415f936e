"""What the reaper's steps share: a time budget, and going on after a failure."""

from collections.abc import Awaitable
from dataclasses import dataclass
from time import monotonic

import structlog
from temporalio.service import RPCError

from domain.errors import CofounderError

LOOK_SECONDS = 40.0
"""A step begins nothing after this many seconds. The next look, a minute after this one, does the rest."""

AT_ONCE = 20
"""Questions to Temporal at the same time."""

log = structlog.get_logger("reaper")


@dataclass(frozen=True)
class PlannedAct:
    """What a look would do to something, and why, for operators. `id`: of a build, a sandbox, or a key of the store."""

    act: str
    id: str
    why: str


class Budget:
    """The time that a step has."""

    def __init__(self, seconds: float = LOOK_SECONDS) -> None:
        self._until = monotonic() + seconds

    @property
    def is_spent(self) -> bool:
        """Whether to leave the rest to the next look."""
        return monotonic() > self._until


async def attempt(what: str, build_id: object, step: Awaitable[bool]) -> bool:
    """Run a part of a step; returns whether it changed something. The next look tries again what fails."""
    try:
        return await step
    except (CofounderError, RPCError) as error:
        log.warning(f"the reaper could not {what}", build_id=str(build_id), error=error)
        return False
