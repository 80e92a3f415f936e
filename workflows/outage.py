"""How a build waits for a dependency: as `waiting`, without a person, until a step can be tried again."""

from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.prober import ProberActivities
    from domain.outage import (
        ASK_AFTER,
        LONGEST_WAIT,
        LONGEST_WAIT_WHEN_LONG,
        PAUSE_AFTER,
        REASONS,
        REASONS_AT_THE_END,
        wait_before_retry,
    )
    from domain.payloads import (
        DependencyReading,
        DependencyRef,
        LoopState,
        OutageReport,
        OutageState,
        SnapshotReason,
    )
    from domain.status import WAITS, Dependency, Status

from workflows import patches, policies
from workflows.failures import end_if_cancelled
from workflows.projection import Projection
from workflows.upgrade import Upgrade
from workflows.wake import wait_for_wake
from workflows.workspace import Workspace


class Outage:
    """One wait at a time: `wait` before each further attempt, `end` once an attempt has succeeded.

    The wait is part of the build's state. Afterwards the status is what it was before the first one.
    """

    def __init__(self, state: LoopState, projection: Projection, workspace: Workspace, upgrade: Upgrade) -> None:
        self._state = state
        self._projection = projection
        self._workspace = workspace
        self._upgrade = upgrade
        self._waits_in_run = 0
        self._reason = REASONS[state.outage.dependency] if state.outage is not None else None

    @property
    def is_open(self) -> bool:
        """Whether an outage has begun and no attempt has succeeded since."""
        return self._state.outage is not None

    @property
    def is_resting(self) -> bool:
        """Whether the run before has continued as new in a wait, which goes on."""
        return self.is_open and self._state.status is Status.WAITING and self._waits_in_run == 0

    @property
    def has_paused(self) -> bool:
        """Whether the sandbox was paused meanwhile."""
        return self._state.outage is not None and self._state.outage.paused

    async def wait(self, dependency: Dependency, *signals: str) -> bool:
        """Become `waiting`, and wait until it is worth another attempt. Each further wait is longer.

        The signals `recovered` and `wake` end the wait, as do those in `signals`: names of flags in the build's state.
        So does time, in case a signal is lost.

        Returns:
            False if the time ran out.

        Raises:
            CancelledError: the build was cancelled.
        """
        end_if_cancelled()
        return await self._wait(dependency, REASONS[dependency], *signals)

    async def end(self) -> None:
        """Take the status again that the build had before it waited, if it has waited."""
        await self._show_attempt()
        self._state.outage = None

    async def wait_for_answer(self, dependency: Dependency, detail: str | None, *, resumable: bool = False) -> bool:
        """Wait until the dependency answers again, as far as is known, or a person wakes the build.

        Args:
            dependency: what is away.
            detail: the error, for operators; None if it was reported before.
            resumable: the build may continue as new in this wait: the new run comes to the same step by itself.

        Returns:
            False if the dependency answers its probes and has nevertheless failed the build for a day.

        Raises:
            CancelledError: the build was cancelled.
        """
        end_if_cancelled()
        self._begin(dependency)
        if detail is not None:
            reading = await self._report(dependency, detail)
            if reading.is_up and self._lasted() >= ASK_AFTER:
                return False
        while True:
            if resumable and self._is_long():
                self._upgrade.continue_as_new()
            if await self.wait(dependency) or not (await self._reading(dependency)).is_down:
                break
            await self._pause_if_long(dependency)
        await self._show_attempt()
        return True

    async def wait_to_save(self, dependency: Dependency, detail: str, deadline: datetime) -> None:
        """Wait as `wait_for_answer` does, also if the build was cancelled, of a build that ends, until the deadline."""
        self._begin(dependency)
        await self._report(dependency, detail)
        while workflow.now() < deadline:
            reason = REASONS_AT_THE_END.get(dependency, REASONS[dependency])
            if (
                await self._wait(dependency, reason, even_if_cancelled=True)
                or not (await self._reading(dependency)).is_down
            ):
                return
            await self._pause_if_long(dependency)

    def note_resumed(self) -> None:
        """Note that the sandbox runs again."""
        if self._state.outage is not None:
            self._change(paused=False, awake_since=workflow.now())

    # ---- parts

    def _begin(self, dependency: Dependency) -> None:
        if self._state.outage is None:
            if self._state.status in WAITS and workflow.patched(patches.WAITS_ON.id):
                self._reason = None  # another wait is shown, perhaps since the last outage
            self._state.outage = OutageState(dependency=dependency, before=self._state.status, since=workflow.now())

    def _change(self, **changes: object) -> OutageState:
        assert self._state.outage is not None, "an outage has begun"
        self._state.outage = self._state.outage.model_copy(update=changes)
        return self._state.outage

    def _lasted(self) -> timedelta:
        outage = self._state.outage
        return timedelta() if outage is None else workflow.now() - outage.since

    async def _wait(self, dependency: Dependency, reason: str, *signals: str, even_if_cancelled: bool = False) -> bool:
        self._begin(dependency)
        outage, state = self._state.outage, self._state
        assert outage is not None, "an outage has begun"
        if (state.status, outage.dependency, self._reason) != (Status.WAITING, dependency, reason):
            self._reason = reason
            await self._projection.become(Status.WAITING, dependency=dependency, reason=reason)
        longest = LONGEST_WAIT_WHEN_LONG if even_if_cancelled or self._is_long() else LONGEST_WAIT
        moment = wait_before_retry(outage.waits, self._lasted(), workflow.random().random(), longest)
        self._change(dependency=dependency, waits=outage.waits + 1)
        self._waits_in_run += 1
        what = f"waiting for the {dependency}"
        upgrade = None if even_if_cancelled else self._upgrade
        return await wait_for_wake(
            state, moment, what, "recovered", *signals, even_if_cancelled=even_if_cancelled, upgrade=upgrade
        )

    async def _show_attempt(self) -> None:
        """While it is tried again, the build has the status from before. If that was a wait as well, which had just
        ended, the build goes on waiting until it works again."""
        outage = self._state.outage
        if outage is None or self._state.status is not Status.WAITING:
            return
        if outage.before in WAITS and workflow.patched(patches.WAITS_ON.id):
            return
        await self._projection.become(outage.before)

    async def _report(self, dependency: Dependency, detail: str) -> DependencyReading:
        return await workflow.execute_activity_method(
            ProberActivities.report_outage,
            OutageReport.sparse(dependency=dependency, detail=detail[:300]),
            **policies.DATABASE,
            summary=f"the {dependency} does not answer",
        )

    async def _reading(self, dependency: Dependency) -> DependencyReading:
        return await workflow.execute_activity_method(
            ProberActivities.read_dependency,
            DependencyRef(dependency=dependency),
            **policies.DATABASE,
            summary=f"whether the {dependency} answers",
        )

    async def _pause_if_long(self, dependency: Dependency) -> None:
        """Pause the sandbox in a long wait. Nothing is asked of a service that is away."""
        outage = self._state.outage
        if outage is None or outage.paused or dependency is Dependency.SANDBOX:
            return
        if not self._workspace.is_open or self._workspace.is_paused:
            return
        if workflow.now() - (outage.awake_since or outage.since) < PAUSE_AFTER:
            return
        self._change(paused=True)  # even if it fails: then its state is unknown
        try:
            if dependency is not Dependency.STORE:
                await self._workspace.snapshot(SnapshotReason.WAIT, policies.SNAPSHOT_IF_POSSIBLE)
            await self._workspace.pause(policies.PAUSE_IF_POSSIBLE)
        except ActivityError as error:
            workflow.logger.warning("the sandbox was not paused", extra={"error": error})

    def _is_long(self) -> bool:
        return self._upgrade.is_long(self._waits_in_run)
