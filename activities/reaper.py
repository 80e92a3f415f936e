"""The reaper: mends what a crash, or an operator, has left between the rows, the workflows and the sandboxes."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Select, func, select, tuple_, update
from temporalio import activity
from temporalio.service import RPCError

from activities.runtime.errors import application_errors
from activities.runtime.heartbeat import heartbeating
from activities.sandbox.snapshot_store import sweep_snapshots
from activities.slots import admit_next
from clients.build_workflows import BuildToStart, BuildWorkflows, WorkflowFate
from clients.object_store import ObjectStore
from clients.sandbox import ListedSandbox, Role, Sandboxes
from db import money, slots, steering
from db.ending import close_dangling_work
from db.feed import append_events
from db.models import Build, Preview, Project, User
from db.session import Sessions
from db.snapshots import SNAPSHOTS_PREFIX
from domain.errors import CofounderError, NotFound
from domain.events import EventType, NewEvent
from domain.names import build_workflow_id, preview_workflow_id
from domain.payloads import PendingInput, ReapResult
from domain.status import Status

_YOUNG = timedelta(seconds=15)
"""The API starts or cancels a build right after it has written so; what is younger is still its own."""

_ABANDONED = timedelta(hours=2)
"""An upload that was begun so long ago is nobody's: a snapshot takes a quarter of an hour at most."""

_SWEPT_FOR = timedelta(hours=1)
"""How long after its end a build's snapshots are looked through, as the store may be away when it ends."""

_AT_ONCE = 500
"""Rows read in one query."""

_log = structlog.get_logger(__name__)


class ReaperActivities:
    """`reap`, run by a Temporal Schedule. It never touches a build or a preview that lives.

    `fresh`: a younger sandbox is left alone, as it may be of an attempt that has not said so yet.
    """

    def __init__(
        self,
        sessions: Sessions,
        builds: BuildWorkflows,
        sandboxes: Sandboxes,
        store: ObjectStore,
        fresh: timedelta,
        *,
        autonomous_agent: bool = True,
    ) -> None:
        self._sessions = sessions
        self._builds = builds
        self._sandboxes = sandboxes
        self._store = store
        self._fresh = fresh
        self._autonomous_agent = autonomous_agent

    @activity.defn
    @application_errors
    async def reap(self) -> ReapResult:
        """Look once at everything that is open. What can't be mended now is left for the next run."""
        async with heartbeating():
            return ReapResult(
                started=await self._start_unstarted(),
                closed=await self._close_closed(),
                cancelled=await self._repeat_cancels(),
                admitted=await self._admit(),
                nudged=await self._repeat_news_of_money() + await self._repeat_steering(),
                previews=await self._close_previews(),
                sandboxes=await self._end_sandboxes(),
                uploads=await self._abort_uploads(),
                objects=await self._sweep_up(),
            )

    # ---- rows and workflows

    async def _admit(self) -> int:
        """Nudge queued builds whose slot is free: the worker that freed it may have died before it could."""
        async with self._sessions() as session:
            users = await slots.users_with_a_queue(session)
        return sum([await admit_next(self._sessions, self._builds, user_id) for user_id in users])

    async def _repeat_news_of_money(self) -> int:
        """Tell builds that wait of a change of money or standing that nobody has told them of, and those that the kill
        switch holds that it is off."""
        before = datetime.now(UTC) - _YOUNG
        async with self._sessions() as session:
            news = await money.builds_to_tell(session, before, switched_on=self._autonomous_agent)

        async def tell(each: money.News) -> bool:
            await self._builds.tell_of_money(each.build_id)
            async with self._sessions.begin() as session:
                await money.note_told(session, [each.build_id], each.since)
            return True

        return sum([await _tried("tell a build of money", each.build_id, tell(each)) for each in news])

    async def _repeat_steering(self) -> int:
        """Tell builds, once more, of what their founders have said or asked for: whoever stored it may have died before
        saying so. A build that works sees it at its next turn anyway; one that waits for its founder would not.
        """
        async with self._sessions() as session:
            found = await steering.builds_to_tell(session, datetime.now(UTC) - _YOUNG)

        async def tell(build_id: uuid.UUID, pending: PendingInput) -> bool:
            if pending.message:
                await self._builds.tell_of_message(build_id, pending.message)
            if pending.restore:
                await self._builds.tell_of_restore(build_id, pending.restore)
            async with self._sessions.begin() as session:
                await steering.note_told(session, build_id, pending)
            return True

        return sum([await _tried("tell a build of its founder", each, tell(each, pending)) for each, pending in found])

    async def _start_unstarted(self) -> int:
        """Start what a crash between the row and the workflow has left."""
        query = (
            select(Build, Project.name, User.plan)
            .join(Project, Build.project_id == Project.id)
            .join(User, Build.user_id == User.id)
            .where(Build.started_at.is_(None), Build.created_at < datetime.now(UTC) - _YOUNG)
        )

        async def start(row: Any) -> bool:
            build, project_name, plan = row
            await self._builds.start(
                BuildToStart(
                    build_id=build.id,
                    user_id=build.user_id,
                    project_id=build.project_id,
                    project_name=project_name,
                    plan=plan,
                    goal=build.goal,
                )
            )
            async with self._sessions.begin() as session:
                await session.execute(
                    update(Build).where(Build.id == build.id, Build.started_at.is_(None)).values(started_at=func.now())
                )
            return True

        return await self._each_open(query, start)

    async def _repeat_cancels(self) -> int:
        """Cancel what its founder has cancelled and is still open: the row is the truth, the request may be lost."""
        asked = Build.cancel_requested_at < datetime.now(UTC) - _YOUNG

        async def cancel(row: Any) -> bool:
            with suppress(NotFound):
                await self._builds.cancel(row[0].id)
            return True

        return await self._each_open(select(Build).where(Build.started_at.is_not(None), asked), cancel)

    async def _close_closed(self) -> int:
        """Close the rows of builds whose workflow Temporal lists as ended without having closed them itself.

        A workflow that is not found or has completed proves no failure: the namespace may be another one, or the
        database an older one. Such a build is reported and left as it is.
        """

        async def close(row: Any) -> bool:
            build_id = row[0].id
            fate = await self._builds.fate(build_workflow_id(build_id))
            if fate.left_work_undone:
                return await self._close(build_id, f"The build's workflow was ended from outside ({fate}).")
            if fate is not WorkflowFate.OPEN:
                _log.warning("an open build has no running workflow", build_id=str(build_id), workflow=fate)
            return False

        return await self._each_open(select(Build).where(Build.started_at.is_not(None)), close)

    async def _close(self, build_id: uuid.UUID, reason: str) -> bool:
        async def close_what_is_left() -> None:
            # Not in that transaction: whoever settles a call locks the call's row before the build's.
            async with self._sessions.begin() as session:
                await close_dangling_work(session, build_id)

        await close_what_is_left()  # also here, since nobody comes back for it once the build is closed
        async with self._sessions.begin() as session:
            written = await session.scalar(
                update(Build)
                .where(Build.id == build_id, Build.closed_at.is_(None))
                .values(
                    status=Status.FAILED,
                    status_seq=Build.status_seq + 1,
                    waiting_for=None,
                    wakes_at=None,
                    sandbox_id=None,
                    reason=reason,
                    closed_at=func.now(),
                )
                .returning(Build.id)
            )
            if written is None:
                return False
            data = {"status": Status.FAILED, "reason": reason}
            await append_events(session, build_id, [NewEvent(EventType.STATUS, data)])
        await close_what_is_left()
        return True

    async def _close_previews(self) -> int:
        """Close the rows of previews whose workflow Temporal lists as ended without having closed them itself."""
        async with self._sessions() as session:
            rows = (await session.scalars(select(Preview).where(Preview.state.in_(("opening", "open"))))).all()

        async def close(row: Preview) -> bool:
            if not (await self._builds.fate(preview_workflow_id(row.build_id))).has_ended:
                return False
            async with self._sessions.begin() as session:
                closed = {"state": "closed", "seq": row.seq + 1, "sandbox_id": None, "url": None, "expires_at": None}
                written = await session.scalar(
                    update(Preview)
                    .where(Preview.build_id == row.build_id, Preview.seq == row.seq)
                    .values(**closed)
                    .returning(Preview.seq)
                )
                if written is None:
                    return False
                data = {"state": "closed", "url": None, "expires_at": None, "reason": None}
                await append_events(session, row.build_id, [NewEvent(EventType.PREVIEW, data)])
            return True

        return sum([await _tried("close a preview", row.build_id, close(row)) for row in rows])

    async def _each_open(self, query: Select[*tuple[Any, ...]], step: Callable[[Any], Awaitable[bool]]) -> int:
        """Do a step for each open build that the query finds, the oldest first; one that fails stops none."""
        done = 0
        async for row in self._open_builds(query):
            done += await _tried("mend a build", row[0].id, step(row))
        return done

    async def _open_builds(self, query: Select[*tuple[Any, ...]]) -> AsyncIterator[Any]:
        after: ColumnElement[bool] | None = None
        while True:
            page = query.where(Build.closed_at.is_(None)).order_by(Build.created_at, Build.id).limit(_AT_ONCE)
            async with self._sessions() as session:
                rows = (await session.execute(page if after is None else page.where(after))).all()
            for row in rows:
                yield row
            if len(rows) < _AT_ONCE:
                return
            last: Build = rows[-1][0]
            after = tuple_(Build.created_at, Build.id) > (last.created_at, last.id)

    # ---- sandboxes and uploads

    async def _end_sandboxes(self) -> int:
        """Kill sandboxes whose build and preview have both ended, and those that an open build has replaced."""
        try:
            listed = await self._sandboxes.list_all()
        except CofounderError as error:
            _log.warning("the reaper could not list sandboxes", error=str(error))
            return 0
        before = datetime.now(UTC) - self._fresh
        since = {sandbox.id: sandbox.started_at for sandbox in listed}
        old = [sandbox for sandbox in listed if sandbox.started_at < before]
        return sum(
            [await _tried("end a sandbox", sandbox.build_id, self._end_if_nobodys(sandbox, since)) for sandbox in old]
        )

    async def _end_if_nobodys(self, sandbox: ListedSandbox, since: Mapping[str, datetime]) -> bool:
        """A build that is not in this database is another deployment's under the same key, and none of ours.

        `since` tells when each sandbox was made. A workspace that is older than the one that its open build works in
        has been replaced by it, and whoever replaced it could not let go of it. A newer one may be replacing it now.
        """
        try:
            build_id = uuid.UUID(sandbox.build_id)
        except ValueError:
            return False
        async with self._sessions() as session:
            build = await session.get(Build, build_id)
        if build is None:
            return False
        if build.closed_at is None:
            in_use = since.get(build.sandbox_id or "")
            if sandbox.role != Role.WORKSPACE or in_use is None or in_use <= sandbox.started_at:
                return False
            await self._sandboxes.kill(sandbox.id)
            _log.info("ended a sandbox that was replaced", build_id=sandbox.build_id, sandbox_id=sandbox.id)
            return True
        # A workflow that has closed the row may still be letting go, or hand the sandbox to the preview.
        if not (await self._builds.fate(build_workflow_id(build_id))).has_ended:
            return False
        # The build's workflow is in this namespace, so a preview that is not found was never opened, or is long over.
        if await self._builds.fate(preview_workflow_id(build_id)) is WorkflowFate.OPEN:
            return False
        await self._sandboxes.kill(sandbox.id)
        _log.info("ended a sandbox that nobody had let go of", build_id=sandbox.build_id, sandbox_id=sandbox.id)
        return True

    async def _abort_uploads(self) -> int:
        """Abort what killed workers have left of their uploads. A build's own next snapshot does it sooner."""
        try:
            return await self._store.abort_uploads(SNAPSHOTS_PREFIX, before=datetime.now(UTC) - _ABANDONED)
        except CofounderError as error:
            _log.warning("the reaper could not abort uploads", error=str(error))
            return 0

    async def _sweep_up(self) -> int:
        """Delete what killed attempts have left of builds that have ended since: no next snapshot of theirs does it.

        And estimate the calls that such a build still has open, if it was terminated just before it would have done so
        itself: while one is open, its user's other builds wait for it instead of sleeping.
        """
        query = select(Build.id).where(Build.closed_at > datetime.now(UTC) - _SWEPT_FOR)
        async with self._sessions() as session:
            ids = (await session.scalars(query)).all()
        deleted = 0

        async def sweep(build_id: uuid.UUID) -> bool:
            nonlocal deleted
            async with self._sessions.begin() as session:
                await money.estimate_all_of(session, build_id)
            deleted += await sweep_snapshots(self._sessions, self._store, build_id)
            return True

        for build_id in ids:
            await _tried("sweep up after a build", build_id, sweep(build_id))
        return deleted


async def _tried(what: str, build_id: object, step: Awaitable[bool]) -> bool:
    """Whether the step was done. A failure is logged: the next run tries again, and the others go on."""
    try:
        return await step
    except (CofounderError, RPCError) as error:
        _log.warning(f"the reaper could not {what}", build_id=str(build_id), error=str(error))
        return False
