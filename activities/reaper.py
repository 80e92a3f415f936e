"""The reaper: starts builds that a crash left unstarted, closes rows whose workflow is closed, repeats lost cancels."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select, update
from temporalio import activity
from temporalio.client import WorkflowExecutionStatus

from activities.edge import edge
from clients.build_workflows import BuildToStart, BuildWorkflows
from db.feed import append_events
from db.models import Build, Project, User
from db.session import Sessions
from domain.errors import NotFound
from domain.events import EventType, NewEvent
from domain.payloads import ReapResult
from domain.status import Status

_UNSTARTED_AFTER = timedelta(seconds=15)
"""The API starts or cancels a build right after it has written so; what is younger is still its own."""

_AT_ONCE = 500
"""Rows looked at in one run."""


class ReaperActivities:
    """`reap`, run by a Temporal Schedule. It never touches a build that lives."""

    def __init__(self, sessions: Sessions, builds: BuildWorkflows) -> None:
        self._sessions = sessions
        self._builds = builds

    @activity.defn
    @edge
    async def reap(self) -> ReapResult:
        """Look once at every open build."""
        return ReapResult(
            started=await self._start_unstarted(),
            closed=await self._close_closed(),
            cancelled=await self._repeat_cancels(),
        )

    async def _start_unstarted(self) -> int:
        before = datetime.now(UTC) - _UNSTARTED_AFTER
        async with self._sessions() as session:
            rows = (
                await session.execute(
                    select(Build, Project.name, User.plan)
                    .join(Project, Build.project_id == Project.id)
                    .join(User, Build.user_id == User.id)
                    .where(Build.started_at.is_(None), Build.closed_at.is_(None), Build.created_at < before)
                    .order_by(Build.created_at)
                    .limit(_AT_ONCE)
                )
            ).all()
        for build, project_name, plan in rows:
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
            activity.heartbeat()
        return len(rows)

    async def _repeat_cancels(self) -> int:
        """Cancel what its founder has cancelled and is still open: the row is the truth, the request may be lost."""
        before = datetime.now(UTC) - _UNSTARTED_AFTER
        async with self._sessions() as session:
            ids = (
                await session.scalars(
                    select(Build.id)
                    .where(Build.started_at.is_not(None), Build.closed_at.is_(None), Build.cancel_requested_at < before)
                    .order_by(Build.cancel_requested_at)
                    .limit(_AT_ONCE)
                )
            ).all()
        for build_id in ids:
            activity.heartbeat()
            with suppress(NotFound):
                await self._builds.cancel(build_id)
        return len(ids)

    async def _close_closed(self) -> int:
        async with self._sessions() as session:
            ids = (
                await session.scalars(
                    select(Build.id)
                    .where(Build.started_at.is_not(None), Build.closed_at.is_(None))
                    .order_by(Build.created_at)
                    .limit(_AT_ONCE)
                )
            ).all()
        closed = 0
        for build_id in ids:
            activity.heartbeat()
            try:
                status = (await self._builds.describe(build_id)).status
            except NotFound:
                status = None
            if status is WorkflowExecutionStatus.RUNNING:
                continue
            how = status.name.lower().replace("_", " ") if status else "it is not there any more"
            reason = f"The build's workflow was ended from outside ({how})."
            async with self._sessions.begin() as session:
                written = await session.scalar(
                    update(Build)
                    .where(Build.id == build_id, Build.closed_at.is_(None))
                    .values(
                        status=Status.FAILED,
                        status_seq=Build.status_seq + 1,
                        waiting_for=None,
                        wakes_at=None,
                        reason=reason,
                        closed_at=func.now(),
                    )
                    .returning(Build.id)
                )
                if written is not None:
                    closed += 1
                    data = {"status": Status.FAILED, "reason": reason}
                    await append_events(session, build_id, [NewEvent(EventType.STATUS, data)])
        return closed
