"""What a run of the reaper would do now. Nothing is changed: the looks judge, and do not act."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from temporalio.service import RPCError

from clients.build_workflows import BuildWorkflows
from clients.sandbox import Sandboxes
from db.session import Sessions
from domain.errors import CofounderError, Misconfigured
from services.deployment import is_bound_here
from services.reap.builds import BuildReaper
from services.reap.deletions import plan_deletions
from services.reap.look import PlannedAct
from services.reap.nudges import Nudges
from services.reap.sandboxes import SandboxReaper


@dataclass(frozen=True)
class StepPlan:
    """What a step would do. `problem`: why that could not be found out; None if it could."""

    step: str
    acts: Sequence[PlannedAct]
    problem: str | None = None


async def plan_reap(
    sessions: Sessions,
    workflows: BuildWorkflows,
    sandboxes: Sandboxes | None,
    spare_younger_than: timedelta,
    *,
    autonomous_agent: bool,
) -> list[StepPlan]:
    """Say what each step would do, compared with all that runs.

    Args:
        sandboxes: None if this process has no access to the sandbox service.
        spare_younger_than: as for `SandboxReaper`.
        autonomous_agent: as for `Nudges`.

    Raises:
        SQLAlchemyError: the database does not answer.
    """

    async def plan_sandboxes() -> list[PlannedAct]:
        if sandboxes is None:
            raise Misconfigured("This process has no E2B_API_KEY, so it can't list sandboxes. Set it.")
        return await SandboxReaper(sessions, workflows, sandboxes, spare_younger_than).plan()

    looks: dict[str, Callable[[], Awaitable[list[PlannedAct]]]] = {
        "builds": BuildReaper(sessions, workflows).plan,
        "sandboxes": plan_sandboxes,
        "store": partial(plan_deletions, sessions),
        "nudges": Nudges(sessions, workflows, autonomous_agent=autonomous_agent).plan,
    }
    try:
        is_ours = await is_bound_here(sessions, workflows)
        problem = None if is_ours else "The database belongs to another Temporal namespace, so the reaper does nothing."
    except (CofounderError, RPCError, RuntimeError) as error:
        problem = str(error) or type(error).__name__
    if problem is not None:
        return [StepPlan(step, [], problem) for step in looks]
    return [await _plan(step, look) for step, look in looks.items()]


async def _plan(step: str, look: Callable[[], Awaitable[list[PlannedAct]]]) -> StepPlan:
    try:
        return StepPlan(step, await look())
    except (CofounderError, RPCError, RuntimeError) as error:
        return StepPlan(step, [], str(error) or type(error).__name__)
