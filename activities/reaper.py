"""The reaper: repairs what a crash or an operator left inconsistent between rows, workflows, sandboxes and the store.

Each step is an activity with its own time budget, so that a slow one does not keep the others from their work.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

from temporalio import activity
from temporalio.service import RPCError

from activities.reaped_store import StoreReaper
from activities.runtime.errors import application_errors
from activities.runtime.heartbeat import heartbeating
from clients.build_workflows import BuildWorkflows
from clients.object_store import ObjectStore
from clients.sandbox import Sandboxes
from db.session import Sessions
from domain.errors import CofounderError
from domain.payloads import ReapResult
from observing import metrics
from services.deployment import check_deployment
from services.permits import Permits
from services.reap.builds import BuildReaper
from services.reap.look import Budget, log
from services.reap.nudges import Nudges
from services.reap.sandboxes import SandboxReaper


class ReaperActivities:
    """`reap_builds`, `reap_sandboxes`, `sweep_store` and `repeat_nudges`, run by a Temporal Schedule.

    They end no build and no preview whose workflow is running, and do nothing in a namespace that the database is not
    bound to.
    """

    def __init__(
        self,
        sessions: Sessions,
        builds: BuildWorkflows,
        sandboxes: Sandboxes,
        store: ObjectStore,
        spare_younger_than: timedelta,
        *,
        autonomous_agent: bool = True,
        permits: Permits,
        conversation_days: int | None = None,
    ) -> None:
        self._sessions = sessions
        self._workflows = builds
        self._builds = BuildReaper(sessions, builds)
        self._sandboxes = SandboxReaper(sessions, builds, sandboxes, spare_younger_than)
        self._store = StoreReaper(sessions, store, conversation_days)
        self._permits = partial(permits.restore_order, sandboxes, spare_younger_than)
        self._nudges = Nudges(sessions, builds, autonomous_agent=autonomous_agent)

    @activity.defn
    @application_errors
    async def reap(self) -> ReapResult:
        """Do all steps one after the other, for a run of the reaper that began on an older worker."""
        results = [await step() for step in (self._look_at_builds, self._look_at_sandboxes, self._sweep, self._nudge)]
        return sum_of(results)

    @activity.defn
    @application_errors
    async def reap_builds(self) -> ReapResult:
        """Close the rows of builds and previews whose workflow Temporal lists as ended."""
        return await self._look_at_builds()

    @activity.defn
    @application_errors
    async def reap_sandboxes(self) -> ReapResult:
        """End the sandboxes that no open build and no preview needs, and let permits follow what runs."""
        return await self._look_at_sandboxes()

    @activity.defn
    @application_errors
    async def sweep_store(self) -> ReapResult:
        """Write tombstones for what ended builds have left in the store, and delete what is due."""
        return await self._sweep()

    @activity.defn
    @application_errors
    async def repeat_nudges(self) -> ReapResult:
        """Start, cancel and notify builds whose rows say so and that may not have heard of it."""
        return await self._nudge()

    async def _look_at_builds(self) -> ReapResult:
        return await self._in_our_namespace("builds", "look at builds", lambda _: self._builds.look())

    async def _look_at_sandboxes(self) -> ReapResult:
        async def look(budget: Budget) -> ReapResult:
            return ReapResult(sandboxes=await self._sandboxes.look(budget), permits=await self._permits())

        return await self._in_our_namespace("sandboxes", "look at sandboxes", look)

    async def _sweep(self) -> ReapResult:
        return await self._in_our_namespace("store", "sweep the store", self._store.look)

    async def _nudge(self) -> ReapResult:
        return await self._in_our_namespace("nudges", "repeat nudges", self._nudges.look)

    async def _in_our_namespace(
        self, step: str, what: str, look: Callable[[Budget], Awaitable[ReapResult]]
    ) -> ReapResult:
        """Take a look, if the database belongs to this namespace. What fails is left for the next one."""
        async with heartbeating():
            try:
                await check_deployment(self._sessions, self._workflows)
                return await look(Budget())
            except (CofounderError, RPCError) as error:
                log.error(f"the reaper could not {what}", error=error)
                metrics.REAPER_FAILURES.labels(step).inc()
                return ReapResult()


def sum_of(results: list[ReapResult]) -> ReapResult:
    """What several steps did together."""
    return ReapResult(**{name: sum(getattr(each, name) for each in results) for name in ReapResult.model_fields})
