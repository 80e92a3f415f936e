"""Move all builds to one version of the workers, so that the workers of the others can be stopped."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from clients.build_workflows import BuildWorkflows
from clients.deployments import Deployments
from domain.errors import NotFound, Refused
from domain.names import BULK_WORKFLOW, PREVIEW_WORKFLOW
from domain.versions import UNVERSIONED, to_delete

_ASK_AGAIN_SECONDS = 60.0
"""A build that has not moved is asked again after this many seconds: it may have been in the middle of a turn."""

_LOOK_SECONDS = 2.0
"""Look this often at which builds are left. Temporal shows a change a moment later."""


@dataclass(frozen=True)
class Progress:
    """What still keeps to another version."""

    builds: int
    """Builds and deliveries of webhooks. They move by themselves."""
    previews: int
    """They move once they are open. Those of a version that can't move end when their time is over."""
    by_version: dict[str, int]


@dataclass(frozen=True)
class Settled:
    """What came of it. `deleted`: the versions whose records were deleted. `left`: what still keeps to another one."""

    deleted: list[str]
    left: Progress


async def settle(
    deployments: Deployments,
    workflows: BuildWorkflows,
    target: str,
    *,
    rate: float,
    report: Callable[[Progress], None],
    previews: bool = True,
    at_most_seconds: float | None = None,
) -> Settled:
    """Ask what keeps to other versions to move to this one, until nothing is left. It can be stopped and repeated.

    Each moves at the end of its turn, or in the wait that it is in, with its sandbox as it is.

    Args:
        deployments: the workers' deployment.
        workflows: for the builds.
        target: the version; `unversioned` stands for workers without one.
        rate: builds asked a second.
        report: called after each look.
        previews: wait for previews, too. One that can't move ends by itself, after an hour unless it is extended.
        at_most_seconds: stop looking after this long; None: when nothing is left.

    Raises:
        Refused: the version is not the current one, so that builds would not move to it.
        RPCError: Temporal does not answer, or refuses.
    """
    current = (await deployments.read()).current or UNVERSIONED
    if current != target:
        raise Refused(
            f"The current version is {current}, so builds do not move to {target}. First run: cofounder deploy "
            f"set-current {target}"
        )
    asked: dict[str, float] = {}
    began = monotonic()
    while True:
        elsewhere = await workflows.elsewhere(target)
        movable = [each for each in elsewhere if each.kind != PREVIEW_WORKFLOW]
        by_version = Counter(each.version for each in elsewhere)
        left = Progress(len(movable), len(elsewhere) - len(movable), dict(sorted(by_version.items())))
        report(left)
        is_late = at_most_seconds is not None and monotonic() - began > at_most_seconds
        if is_late or not (left.builds or (previews and left.previews)):
            break
        for workflow_id in [each.id for each in elsewhere if each.kind != BULK_WORKFLOW]:  # those move unasked
            if monotonic() - asked.get(workflow_id, -_ASK_AGAIN_SECONDS) < _ASK_AGAIN_SECONDS:
                continue
            asked[workflow_id] = monotonic()
            await _ask(workflows, workflow_id)
            await asyncio.sleep(1 / rate)
        await asyncio.sleep(_LOOK_SECONDS)
    return Settled(await _delete_drained(deployments, left.by_version), left)


async def _ask(workflows: BuildWorkflows, workflow_id: str) -> None:
    try:
        await workflows.ask_to_upgrade(workflow_id)
    except NotFound:
        return  # it has ended meanwhile


async def _delete_drained(deployments: Deployments, running: dict[str, int]) -> list[str]:
    """Delete the records of drained versions whose workers are stopped, and return their names."""
    state = await deployments.read()
    return [each for each in to_delete(state.versions, running) if await deployments.delete(each)]
