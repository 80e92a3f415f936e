"""Record the workflow's status in the database, close a build, and run what follows."""

import uuid

from temporalio import activity

from activities.runtime.crash_point import crash_point
from activities.runtime.errors import application_errors
from activities.status import write_status
from clients.build_workflows import BuildWorkflows
from clients.sandbox_runner import WORKSPACE
from db import builds, money
from db.dangling_work import close_dangling_work
from db.feed import append_events
from db.session import Sessions
from db.transaction import transaction
from domain.events import HookFailedEvent
from domain.payloads import BuildRef, FinishBuild, FinishedBuild, PreviewInput, StatusChange
from domain.status import CLOSED, WAITS
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
        if waits:
            async with transaction(self._sessions) as tx:
                await money.estimate_all_of(tx, build_id)
        async with transaction(self._sessions) as tx:
            user_id = await write_status(tx, request)
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
