"""Record the workflow's status in the database, close a build, and run what follows."""

import uuid

from temporalio import activity

from activities.runtime.crash_point import crash_point
from activities.runtime.errors import application_errors
from clients.build_workflows import BuildWorkflows
from clients.sandbox_runner import WORKSPACE
from db import builds, money, steering
from db.dangling_work import close_dangling_work
from db.feed import append_events
from db.session import Sessions
from db.transaction import transaction
from domain.events import HookFailedEvent, StatusEvent
from domain.names import wake_command
from domain.payloads import BuildRef, FinishBuild, FinishedBuild, PreviewInput, StatusChange
from domain.question import ASKED, reason_of
from domain.status import CLOSED, WAITS, Status
from domain.text import storable
from services.completion import close_as_ready, write_follow_up
from services.slots import nudge_queued_builds


class LifecycleActivities:
    """The activities `record_status`, `start_preview`, `finish_build` and `run_post_build_hook`."""

    def __init__(self, sessions: Sessions, builds: BuildWorkflows) -> None:
        self._sessions = sessions
        self._builds = builds

    @activity.defn
    @application_errors
    async def record_status(self, request: StatusChange) -> None:
        """Write the status to the build's row and feed.

        Raises:
            RowsAreAhead: the row has a later one.
        """
        build_id = uuid.UUID(request.build_id)
        if request.is_incomplete:
            # Of a run that began before the patch `waits-on`: the row goes on saying what the build waits for.
            async with transaction(self._sessions) as tx:
                await builds.keep_status(tx, request)
            return
        closed, waits = request.status in CLOSED, request.status in WAITS
        # The reason may quote an error that `runtime/errors.py` did not clean, and a status that can't be written
        # would be retried for ever.
        reason = None if request.reason is None else storable(request.reason)
        if waits:
            async with transaction(self._sessions) as tx:
                await money.estimate_all_of(tx, build_id)
        async with transaction(self._sessions) as tx:
            if reason == ASKED and (asked := await steering.find_question(tx, build_id)) is not None:
                reason = reason_of(asked.question.problem)
            is_repeated = request.again and await builds.has_status(tx, request, reason)
            user_id = await builds.record_status(tx, request, reason)
            if user_id is None:
                await builds.require_recorded(tx, request)
            else:
                if not is_repeated:
                    await append_events(tx, build_id, [_status_event(request, reason)])
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
    async def start_preview(self, request: PreviewInput) -> None:
        """Start the preview of a product that has passed its checks, with the gate's sandbox.

        It is started once: of a build that is ready, as after a reset of its workflow, it has its sandbox already, or
        has ended. So it is not a child workflow, which Temporal starts again after a reset.

        Raises:
            RPCError: Temporal did not take it.
        """
        async with transaction(self._sessions) as tx:
            if await builds.has_ended(tx, uuid.UUID(request.build_id)):
                return
        await self._builds.start_preview(request)

    @activity.defn
    @application_errors
    async def finish_build(self, request: FinishBuild) -> FinishedBuild:
        """Close the build as ready, with the project's next version; a second attempt returns the first one's."""
        ready = await close_as_ready(self._sessions, request, WORKSPACE)
        if not ready.is_new:
            return FinishedBuild(build_version=ready.version)
        await crash_point("finish_build.committed")
        await nudge_queued_builds(self._sessions, self._builds, ready.user_id)
        return FinishedBuild(build_version=ready.version)

    @activity.defn
    @application_errors
    async def run_post_build_hook(self, request: BuildRef) -> None:
        """Mark the project as `mvp_built`, and add one business event for other systems."""
        build_id = uuid.UUID(request.build_id)
        async with transaction(self._sessions) as tx:
            build = await builds.load_build(tx, build_id)
            await write_follow_up(tx, build)

    @activity.defn
    @application_errors
    async def note_hook_failure(self, request: BuildRef) -> None:
        """Write in the feed that the post-build hook failed; the build stays ready."""
        event = HookFailedEvent(
            error="Your build is ready, but a step after it failed. The product itself is not affected."
        )
        async with transaction(self._sessions) as tx:
            await append_events(tx, uuid.UUID(request.build_id), [event])


def _status_event(request: StatusChange, reason: str | None) -> StatusEvent:
    return StatusEvent(
        status=request.status,
        waiting_for=request.waiting_for,
        dependency=request.dependency,
        reason=reason,
        wakes_at=request.wakes_at.isoformat() if request.wakes_at else None,
        wake_command=wake_command(request.build_id)
        if request.status in (Status.SLEEPING, Status.NEEDS_INPUT)
        else None,
    )
