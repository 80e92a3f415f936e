"""Take and give back the permits to have sandboxes running, and tell those that wait for one."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import structlog
from temporalio.service import RPCError

from clients.build_workflows import BuildWorkflows
from clients.cancellation import run_to_completion
from clients.sandbox import ListedSandbox, Role, Sandboxes
from db import permits
from db.session import Sessions
from db.transaction import transaction
from domain.errors import Conflict, NoPermit, NoSandboxNow, NotFound, SandboxRefused
from domain.names import build_workflow_id, preview_workflow_id
from domain.permits import reason_to_wait

_SIGNAL_IS_LOST = timedelta(seconds=15)
"""Repeat the signal to close a preview after this long: the process that marked it may have died before it sent it."""

_OF_BUILDS = (Role.WORKSPACE, Role.GATE, Role.PREVIEW)
"""Sandboxes for which a build has its permit. That of a push has one of its own, which ends by itself."""

_PUSH_TRIES_AGAIN_SECONDS = 30
"""Tell a founder to try a push again after this many seconds."""

log = structlog.get_logger(__name__)


class Permits:
    """The permits of the fleet. Rows are the truth; a signal that is lost is repeated by `restore_order`."""

    def __init__(
        self,
        sessions: Sessions,
        workflows: BuildWorkflows | None,
        quota: int | None = None,
        starts_per_second: float | None = None,
    ) -> None:
        """
        Args:
            workflows: None to send no signals.
            quota: sandboxes that may run at once; None or 0 for no limit.
            starts_per_second: sandboxes that may be started or resumed a second; None for no limit.
        """
        self._sessions = sessions
        self._workflows = workflows
        self._quota = quota or None
        self._starts_per_second = starts_per_second

    async def take(self, build_id: str, role: Role, patience: timedelta = timedelta()) -> None:
        """Take a permit for the build's sandbox of this role; a build that has one keeps it.

        `patience`: it may check again this much later than usual without losing its place in the queue.

        Raises:
            NoPermit: none is free. The build has a place in the queue.
        """
        async with transaction(self._sessions) as tx:
            place = await permits.take_permit(
                tx, uuid.UUID(build_id), role, self._quota, self._starts_per_second, patience
            )
        if not place.held:
            what = "preview" if role is Role.PREVIEW else "build"
            await self._close_previews()
            if place.refused:
                raise SandboxRefused(reason_to_wait(place.ahead, what, refused=True))
            raise NoPermit(reason_to_wait(place.ahead, what))
        if role is Role.PREVIEW:
            await (
                self._close_previews()
            )  # builds may have queued while the gate held the permit that the preview has now
        if place.wait_seconds:
            await asyncio.sleep(place.wait_seconds)

    @asynccontextmanager
    async def running(self, build_id: str, role: Role) -> AsyncIterator[None]:
        """Take a permit for a sandbox that is started or resumed in the block. It is kept afterwards.

        Raises:
            NoPermit: none is free, or the service has refused the sandbox. The build has a place in the queue.
        """
        await self.take(build_id, role)
        try:
            yield
        except SandboxRefused as error:
            # Its permit is of no use now, and others may get further with it.
            log.warning("the sandbox service has no room", build_id=build_id, role=role, error=error.__cause__)
            async with transaction(self._sessions) as tx:
                await permits.note_refusal(tx, uuid.UUID(build_id))
            await self._close_previews()
            raise

    async def take_anyway(self, build_id: str, role: Role) -> None:
        """Take a permit even if none is free, for the last step of a build, which must not wait."""
        async with transaction(self._sessions) as tx:
            await permits.take_permit_anyway(tx, uuid.UUID(build_id), role)

    async def give_back(self, build_id: str) -> None:
        """Give the build's permit back, and tell those who are next. None of its sandboxes may be running."""
        async with transaction(self._sessions) as tx:
            held = await permits.give_back_permit(tx, uuid.UUID(build_id))
        if held:
            await self.nudge()

    @asynccontextmanager
    async def for_push(self, build_id: uuid.UUID, lasts: timedelta) -> AsyncIterator[None]:
        """Hold a permit for a push's sandbox during the block. It must be gone at the end of it.

        `lasts`: the permit ends by itself after this long, as this process may be killed.

        Raises:
            NoSandboxNow: no permit is free. The push has no place in the queue.
            Conflict: another push of the build runs.
        """
        claim = uuid.uuid4()
        async with transaction(self._sessions) as tx:
            place = await permits.take_push_permit(tx, build_id, claim, lasts, self._quota, self._starts_per_second)
        if place.is_running:
            raise Conflict("Another push of this build is running. Wait until it has ended, then push again.")
        if not place.held:
            raise NoSandboxNow(
                "Builds and previews need every sandbox at the moment, so nothing was pushed. Try again in a minute.",
                _PUSH_TRIES_AGAIN_SECONDS,
            )
        try:
            if place.wait_seconds:
                await asyncio.sleep(place.wait_seconds)
            yield
        finally:
            await run_to_completion(self._give_back_push(build_id, claim))

    async def _give_back_push(self, build_id: uuid.UUID, claim: uuid.UUID) -> None:
        async with transaction(self._sessions) as tx:
            await permits.give_back_push_permit(tx, build_id, claim)
        await self.nudge()

    async def nudge(self) -> int:
        """Tell the builds and previews for which a permit is free to take it; return how many were told."""
        async with transaction(self._sessions) as tx:
            at_once = (self._starts_per_second or 0) * permits.START_WAIT_MAX.total_seconds()
            queue = await permits.next_in_queue(tx, self._quota, unlimited=max(1, int(at_once)))
        told = 0
        for build_id, is_preview in queue:
            told += await self._signal(preview_workflow_id(build_id) if is_preview else build_workflow_id(build_id))
        return told

    async def restore_order(self, sandboxes: Sandboxes, spare_younger_than: timedelta) -> int:
        """Make permits follow what runs, after crashes and lost signals; return how many permits were changed.

        Args:
            sandboxes: what runs is asked of it.
            spare_younger_than: leave sandboxes and permits younger than this alone: they may be starting.

        Raises:
            SandboxUnavailable: the service could not be asked, and nothing was changed.
        """
        everything = await sandboxes.list_all()
        listed = [each for each in everything if each.state == "running" and each.role in list(_OF_BUILDS)]
        running = {build_id for each in listed if (build_id := _uuid(each.build_id)) is not None}
        async with transaction(self._sessions) as tx:
            returned = await permits.return_lost_permits(tx, running, spare_younger_than)
        if returned:
            log.info("returned permits that nothing used", build_ids=[str(each) for each in returned])
        recorded = sum([await self._record(each, spare_younger_than) for each in listed])
        async with transaction(self._sessions) as tx:
            await permits.reclaim_previews(tx, self._quota)
            to_close = await permits.previews_to_close(tx, _SIGNAL_IS_LOST)
        for build_id in to_close:
            await self._close_preview(build_id)
        await self.nudge()
        return len(returned) + recorded

    async def _record(self, sandbox: ListedSandbox, spare_younger_than: timedelta) -> bool:
        """Count a sandbox that runs without a permit."""
        build_id, is_young = _uuid(sandbox.build_id), sandbox.started_at > datetime.now(UTC) - spare_younger_than
        if build_id is None or is_young:
            return False
        async with transaction(self._sessions) as tx:
            return await permits.record_running(tx, build_id, sandbox.role)

    async def _close_previews(self) -> None:
        """Have as many previews closed as builds wait."""
        async with transaction(self._sessions) as tx:
            reclaimed = await permits.reclaim_previews(tx, self._quota)
        for build_id in reclaimed:
            await self._close_preview(build_id)

    async def _close_preview(self, build_id: uuid.UUID) -> None:
        if self._workflows is None:
            return
        try:
            await self._workflows.reclaim_preview(build_id)
        except (NotFound, RPCError) as error:
            log.info("a preview could not be told to close", build_id=str(build_id), error=error)

    async def _signal(self, workflow_id: str) -> bool:
        if self._workflows is None:
            return False
        try:
            await self._workflows.signal_permit(workflow_id)
        except (NotFound, RPCError) as error:
            log.info("a free permit could not be announced", workflow=workflow_id, error=error)
            return False
        return True


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None
