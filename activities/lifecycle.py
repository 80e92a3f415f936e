"""Record the workflow's status in the database, close a build, and run what follows."""

import uuid

from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert
from temporalio import activity

from activities.runtime.crash_point import crash_point
from activities.runtime.errors import application_errors
from clients.build_workflows import BuildWorkflows
from clients.sandbox_runner import WORKSPACE
from db import money, steering
from db.dangling_work import close_dangling_work
from db.feed import append_events
from db.models import Build, BusinessEvent, Project
from db.session import Sessions
from db.snapshots import latest_snapshot
from db.transaction import transaction
from domain.events import HookFailedEvent, ReadyEvent, StatusEvent
from domain.names import wake_command
from domain.payloads import BuildRef, FinishBuild, FinishedBuild, StatusChange
from domain.status import CLOSED, Status
from domain.text import storable
from services.slots import nudge_queued_builds


class LifecycleActivities:
    """The activities `record_status`, `finish_build` and `run_post_build_hook`."""

    def __init__(self, sessions: Sessions, builds: BuildWorkflows) -> None:
        self._sessions = sessions
        self._builds = builds

    @activity.defn
    @application_errors
    async def record_status(self, request: StatusChange) -> None:
        """Write the status to the build's row and feed, unless the row has a newer one."""
        build_id = uuid.UUID(request.build_id)
        closed, waits = request.status in CLOSED, request.status in (Status.SLEEPING, Status.NEEDS_INPUT)
        # The reason may quote an error that `runtime/errors.py` did not clean, and a status that can't be written
        # would be retried for ever.
        reason = None if request.reason is None else storable(request.reason)
        if waits:
            async with transaction(self._sessions) as tx:
                await money.estimate_all_of(tx, build_id)
        async with transaction(self._sessions) as tx:
            user_id = await tx.session.scalar(
                update(Build)
                .where(Build.id == build_id, Build.status_seq < request.seq, Build.closed_at.is_(None))
                .values(
                    status=request.status,
                    status_seq=request.seq,
                    status_at=func.now(),
                    waiting_for=request.waiting_for,
                    reason=reason,
                    wakes_at=request.wakes_at,
                    started_at=func.coalesce(Build.started_at, func.now()),
                    **({"closed_at": func.now(), "sandbox_id": None} if closed else {}),
                )
                .returning(Build.user_id)
            )
            if user_id is not None:
                await append_events(tx, build_id, [_status_event(request, reason, waits)])
                if request.status is not Status.NEEDS_INPUT:
                    await steering.close_question(tx, build_id)
        if closed:
            # In a transaction of its own: settling a call locks the call's row before the build's.
            async with transaction(self._sessions) as tx:
                await close_dangling_work(tx, build_id)
        if closed and user_id is not None:
            await nudge_queued_builds(self._sessions, self._builds, user_id)

    @activity.defn
    @application_errors
    async def finish_build(self, request: FinishBuild) -> FinishedBuild:
        """Close the build as ready, with the project's next version; a second attempt returns the first one's."""
        build_id = uuid.UUID(request.build_id)
        async with transaction(self._sessions) as tx:
            build = await tx.session.get_one(Build, build_id, with_for_update=True)
            if build.build_version is not None:
                return FinishedBuild(build_version=build.build_version)
            project = await tx.session.get_one(Project, build.project_id, with_for_update=True)
            project.last_build_version += 1
            build.build_version = project.last_build_version
            build.status, build.status_seq, build.status_at = Status.READY, request.seq, func.now()
            build.waiting_for = build.reason = build.wakes_at = None
            build.sandbox_id, build.preview_url = request.sandbox_id, request.preview_url
            build.workspace_path = WORKSPACE
            build.phases_completed = request.phases_completed
            build.closed_at = func.now()
            await tx.session.flush()
            final = await latest_snapshot(tx, build_id, request.snapshot_number)
            if final is not None:
                final.final = True
            ready = ReadyEvent(
                build_version=build.build_version,
                preview_url=request.preview_url,
                phases_completed=request.phases_completed,
            )
            await append_events(tx, build_id, [ready, StatusEvent(status=Status.READY)])
            finished, user_id = FinishedBuild(build_version=build.build_version), build.user_id
        await crash_point("finish_build.committed")
        await nudge_queued_builds(self._sessions, self._builds, user_id)
        return finished

    @activity.defn
    @application_errors
    async def run_post_build_hook(self, request: BuildRef) -> None:
        """Mark the project as `mvp_built`, and add one business event for other systems."""
        build_id = uuid.UUID(request.build_id)
        async with transaction(self._sessions) as tx:
            build = await tx.session.get_one(Build, build_id)
            project = await tx.session.get_one(Project, build.project_id, with_for_update=True)
            project.status = "mvp_built"
            await tx.session.execute(
                insert(BusinessEvent)
                .values(
                    id=uuid.uuid4(),
                    type="artifact_generated",
                    project_id=build.project_id,
                    build_id=build_id,
                    data={"artifact": "mvp", "build_version": build.build_version, "user_id": build.user_id},
                )
                .on_conflict_do_nothing()
            )

    @activity.defn
    @application_errors
    async def note_hook_failure(self, request: BuildRef) -> None:
        """Write in the feed that the post-build hook failed; the build stays ready."""
        event = HookFailedEvent(
            error="Your build is ready, but a step after it failed. The product itself is not affected."
        )
        async with transaction(self._sessions) as tx:
            await append_events(tx, uuid.UUID(request.build_id), [event])


def _status_event(request: StatusChange, reason: str | None, waits: bool) -> StatusEvent:
    return StatusEvent(
        status=request.status,
        waiting_for=request.waiting_for,
        reason=reason,
        wakes_at=request.wakes_at.isoformat() if request.wakes_at else None,
        wake_command=wake_command(request.build_id) if waits else None,
    )
