"""The reaper: repairs what a crash or an operator left inconsistent between rows, workflows and sandboxes."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import structlog
from temporalio import activity
from temporalio.service import RPCError

from activities.runtime.errors import application_errors
from activities.runtime.heartbeat import heartbeating
from activities.sandbox.snapshot_store import sweep_snapshots
from clients.build_workflows import BuildWorkflows
from clients.object_store import ObjectStore
from clients.sandbox import ListedSandbox, Role, Sandboxes
from db import builds, money, previews, slots, steering
from db.dangling_work import close_dangling_work
from db.feed import append_events
from db.models import Build, Preview
from db.session import Sessions
from db.snapshots import SNAPSHOTS_PREFIX
from db.transaction import Transaction, transaction
from domain.errors import CofounderError, NotFound
from domain.events import PreviewEvent, StatusEvent
from domain.names import build_workflow_id, preview_workflow_id
from domain.payloads import PendingInput, ReapResult
from domain.status import Status
from domain.verdicts import WorkflowFate
from services.builds import start_workflow
from services.notifications import repeat_budget_notification, repeat_input_notification
from services.slots import nudge_queued_builds

_YOUNG = timedelta(seconds=15)
"""Leave younger rows alone: the API sends the signal right after it has committed the row."""

_ABANDONED = timedelta(hours=2)
"""Abort uploads older than this. A snapshot takes a quarter of an hour at most, so no one finishes them."""

_SWEEP_PERIOD = timedelta(hours=1)
"""Sweep a build's snapshots for this long after its end: the store may be away when it ends."""

_PAGE_ROWS = 500
"""Rows read in one query."""

_ReadPage = Callable[[Transaction, Build | None, int], Awaitable[Sequence[tuple[Build, *tuple[Any, ...]]]]]
"""Reads open builds after a build, up to so many, the oldest first. Each row begins with its build."""

_log = structlog.get_logger(__name__)


class ReaperActivities:
    """`reap`, run by a Temporal Schedule. It ends no build and no preview whose workflow is running.

    `spare_younger_than`: leave sandboxes younger than this alone. The attempt that opened one may not have recorded it
    yet.
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
    ) -> None:
        self._sessions = sessions
        self._builds = builds
        self._sandboxes = sandboxes
        self._store = store
        self._spare_younger_than = spare_younger_than
        self._autonomous_agent = autonomous_agent

    @activity.defn
    @application_errors
    async def reap(self) -> ReapResult:
        """Check everything that is open, once. What can't be repaired now is left for the next run."""
        async with heartbeating():
            return ReapResult(
                started=await self._start_unstarted(),
                closed=await self._close_ended(),
                cancelled=await self._repeat_cancels(),
                admitted=await self._nudge_queues(),
                nudged=await self._repeat_budget_notifications() + await self._repeat_input_notifications(),
                previews=await self._close_previews(),
                sandboxes=await self._end_sandboxes(),
                uploads=await self._abort_uploads(),
                objects=await self._sweep_up(),
            )

    # ---- rows and workflows

    async def _nudge_queues(self) -> int:
        """Nudge queued builds whose slot is free: the worker that freed it may have died before it could."""
        async with transaction(self._sessions) as tx:
            users = await slots.users_with_a_queue(tx)
        return sum([await nudge_queued_builds(self._sessions, self._builds, user_id) for user_id in users])

    async def _repeat_budget_notifications(self) -> int:
        """Notify builds that wait of a change of budget or standing that they have not received; and builds
        that the kill switch stopped, once it is off."""
        before = datetime.now(UTC) - _YOUNG
        async with transaction(self._sessions) as tx:
            missed = await money.missed_notifications(tx, before, switched_on=self._autonomous_agent)

        async def notify(each: money.MissedNotification) -> bool:
            await repeat_budget_notification(self._sessions, self._builds, each)
            return True

        return sum([await _try("notify a build of its budget", each.build_id, notify(each)) for each in missed])

    async def _repeat_input_notifications(self) -> int:
        """Notify builds once more of their founders' messages and restores: the process that stored them may have died
        before it sent the signal. A build that works sees them at its next turn anyway; one that waits would not.
        """
        async with transaction(self._sessions) as tx:
            missed = await steering.missed_notifications(tx, datetime.now(UTC) - _YOUNG)

        async def notify(build_id: uuid.UUID, pending: PendingInput) -> bool:
            await repeat_input_notification(self._sessions, self._builds, build_id, pending)
            return True

        return sum([await _try("notify a build of input", each, notify(each, pending)) for each, pending in missed])

    async def _start_unstarted(self) -> int:
        """Start builds whose row was committed and whose workflow was not started, because of a crash in between."""
        read = partial(builds.unstarted_builds, before=datetime.now(UTC) - _YOUNG)

        async def start(build: Build, project_name: str, plan: str) -> bool:
            await start_workflow(self._sessions, self._builds, build, project_name, plan)
            return True

        return await self._each_open(read, start)

    async def _repeat_cancels(self) -> int:
        """Cancel builds again that are still open after a cancel: the row is the truth, the request may be lost."""
        read = partial(builds.builds_to_cancel, before=datetime.now(UTC) - _YOUNG)

        async def cancel(build: Build) -> bool:
            with suppress(NotFound):
                await self._builds.cancel(build.id)
            return True

        return await self._each_open(read, cancel)

    async def _close_ended(self) -> int:
        """Close the rows of builds whose workflow Temporal lists as ended without having closed them itself.

        A workflow that is not found or has completed proves no failure: the namespace may be another one, or the
        database an older one. Such a build is reported and left as it is.
        """

        async def close(build: Build) -> bool:
            fate = await self._builds.fate(build_workflow_id(build.id))
            if fate.has_ended and fate is not WorkflowFate.COMPLETED:
                return await self._close(build.id, fate)
            if fate is not WorkflowFate.OPEN:
                _log.warning("an open build has no running workflow", build_id=str(build.id), workflow=fate)
            return False

        return await self._each_open(builds.started_builds, close)

    async def _close(self, build_id: uuid.UUID, fate: WorkflowFate) -> bool:
        status = Status.CANCELLED if fate is WorkflowFate.CANCELED else Status.FAILED
        reason = f"The build was stopped from outside ({fate}). Its snapshots are kept."

        async def close_leftovers() -> None:
            # In a transaction of its own: settling a call locks the call's row before the build's.
            async with transaction(self._sessions) as tx:
                await close_dangling_work(tx, build_id)

        await close_leftovers()  # before closing too: once the build is closed, no later run repeats this
        async with transaction(self._sessions) as tx:
            if not await builds.close_stopped_build(tx, build_id, status, reason):
                return False
            event = StatusEvent(status=status, reason=reason)
            await append_events(tx, build_id, [event])
        await close_leftovers()
        return True

    async def _close_previews(self) -> int:
        """Close the rows of previews whose workflow Temporal lists as ended without having closed them itself."""
        async with transaction(self._sessions) as tx:
            rows = await previews.open_previews(tx)

        async def close(row: Preview) -> bool:
            fate = await self._builds.fate(preview_workflow_id(row.build_id))
            if fate is WorkflowFate.UNKNOWN:
                _log.warning("an open preview's workflow is not found", build_id=str(row.build_id))
            if not fate.has_ended:
                return False
            async with transaction(self._sessions) as tx:
                if not await previews.close_preview(tx, row):
                    return False
                event = PreviewEvent(state="closed", url=None, expires_at=None, reason=None)
                await append_events(tx, row.build_id, [event])
            return True

        return sum([await _try("close a preview", row.build_id, close(row)) for row in rows])

    async def _each_open(self, read: _ReadPage, step: Callable[..., Awaitable[bool]]) -> int:
        """Do a step for each open build that `read` reads, the oldest first. A failure doesn't stop the others.

        The step takes the parts of a row.
        """
        done = 0
        async for row in self._open_builds(read):
            done += await _try("repair a build", row[0].id, step(*row))
        return done

    async def _open_builds(self, read: _ReadPage) -> AsyncIterator[tuple[Build, *tuple[Any, ...]]]:
        after: Build | None = None
        while True:
            async with transaction(self._sessions) as tx:
                rows = await read(tx, after, _PAGE_ROWS)
            for row in rows:
                yield row
            if len(rows) < _PAGE_ROWS:
                return
            after = rows[-1][0]

    # ---- sandboxes and uploads

    async def _end_sandboxes(self) -> int:
        """Kill sandboxes whose build and preview have both ended, and those that an open build has replaced."""
        try:
            listed = await self._sandboxes.list_all()
        except CofounderError as error:
            _log.warning("the reaper could not list sandboxes", error=str(error))
            return 0
        before = datetime.now(UTC) - self._spare_younger_than
        since = {sandbox.id: sandbox.started_at for sandbox in listed}
        old = [sandbox for sandbox in listed if sandbox.started_at < before]
        return sum(
            [await _try("end a sandbox", sandbox.build_id, self._end_if_unused(sandbox, since)) for sandbox in old]
        )

    async def _end_if_unused(self, sandbox: ListedSandbox, since: Mapping[str, datetime]) -> bool:
        """Kill the sandbox if no open build and no preview needs it; returns whether it was killed.

        A sandbox of a build that is not in this database belongs to another deployment under the same key. `since` has
        the start of each sandbox: a workspace older than the one that its open build works in was replaced by it, but
        not released. A newer one may be replacing it now.
        """
        try:
            build_id = uuid.UUID(sandbox.build_id)
        except ValueError:
            return False
        async with transaction(self._sessions) as tx:
            build = await builds.find_build_of_any_user(tx, build_id)
        if build is None:
            return False
        if build.closed_at is None:
            current_since = since.get(build.sandbox_id or "")
            if sandbox.role != Role.WORKSPACE or current_since is None or current_since <= sandbox.started_at:
                return False
            await self._sandboxes.kill(sandbox.id)
            _log.info("ended a sandbox that was replaced", build_id=sandbox.build_id, sandbox_id=sandbox.id)
            return True
        # A workflow that has closed the row may still be releasing the sandbox, or hand it to the preview.
        fates = [await self._builds.fate(name(build_id)) for name in (build_workflow_id, preview_workflow_id)]
        if WorkflowFate.OPEN in fates:
            return False
        # If one of them has ended in this namespace, the other is not found because it never began or ended long ago.
        if not any(fate.has_ended for fate in fates):
            _log.warning("the workflow of a closed build's sandbox is not found", build_id=sandbox.build_id)
            return False
        await self._sandboxes.kill(sandbox.id)
        _log.info("ended a sandbox that was not released", build_id=sandbox.build_id, sandbox_id=sandbox.id)
        return True

    async def _abort_uploads(self) -> int:
        """Abort uploads that killed workers left behind. A build's own next snapshot does this sooner."""
        try:
            return await self._store.abort_uploads(SNAPSHOTS_PREFIX, before=datetime.now(UTC) - _ABANDONED)
        except CofounderError as error:
            _log.warning("the reaper could not abort uploads", error=str(error))
            return 0

    async def _sweep_up(self) -> int:
        """Delete objects that killed attempts left behind, for builds that have ended since and take no more snapshots.

        Also mark the open calls of such a build as estimated, in case it was terminated just before it did so itself.
        While a call is open, its user's other builds wait for it instead of sleeping.
        """
        async with transaction(self._sessions) as tx:
            ids = await builds.builds_closed_since(tx, datetime.now(UTC) - _SWEEP_PERIOD)
        deleted = 0

        async def sweep(build_id: uuid.UUID) -> bool:
            nonlocal deleted
            async with transaction(self._sessions) as tx:
                await money.estimate_all_of(tx, build_id)
            deleted += await sweep_snapshots(self._sessions, self._store, build_id)
            return True

        for build_id in ids:
            await _try("sweep up after a build", build_id, sweep(build_id))
        return deleted


async def _try(what: str, build_id: object, step: Awaitable[bool]) -> bool:
    """Run a step; returns whether it changed something. A failure is logged, and the next run tries again."""
    try:
        return await step
    except (CofounderError, RPCError) as error:
        _log.warning(f"the reaper could not {what}", build_id=str(build_id), error=str(error))
        return False
