"""Close a build: as ready for its workflow, or later for its row, if that is older than the end of its workflow."""

import uuid
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import DBAPIError

from clients.build_workflows import BuildWorkflows
from db import builds
from db.business_events import add_artifact_event
from db.dangling_work import close_dangling_work
from db.feed import append_events
from db.models import Build
from db.projects import mark_mvp_built
from db.session import Sessions
from db.snapshots import has_snapshot, mark_final
from db.transaction import Transaction, savepoint, transaction
from domain.events import ReadyEvent, StatusEvent
from domain.payloads import FinishBuild
from domain.status import Status
from domain.verdicts import WorkflowFate

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ReadyBuild:
    """A build that is ready, with its version, and whether this call closed it."""

    version: int
    user_id: str
    is_new: bool


async def close_as_ready(sessions: Sessions, request: FinishBuild, workspace_path: str) -> ReadyBuild:
    """Close the build with the project's next version, once: a repeat returns the version that it has.

    Raises:
        NoResultFound: the build does not exist.
        RowsAreAhead: it has ended in another way.
    """
    build_id = uuid.UUID(request.build_id)
    async with transaction(sessions) as tx:
        build = await builds.lock_build_to_finish(tx, build_id)
        if build.build_version is not None:
            return ReadyBuild(build.build_version, build.user_id, is_new=False)
        await builds.require_open(tx, build_id)
        version = await builds.finish(tx, build, request, workspace_path)
        await mark_final(tx, build_id, request.snapshot_number)
        await _announce(tx, build, request, version)
        await _try_follow_up(tx, build)
        return ReadyBuild(version, build.user_id, is_new=True)


async def project_ready(sessions: Sessions, request: FinishBuild, version: int, workspace_path: str) -> bool:
    """Write to an open row that the build is ready, as its workflow closed it, and what followed from that.

    The final snapshot is marked only if its row is there: an older one must not take its place. The version is the one
    that the workflow returned, or the project's next one if another build has that by now.

    Returns:
        False if the row is closed.

    Raises:
        NoResultFound: the build does not exist.
    """
    build_id = uuid.UUID(request.build_id)
    async with transaction(sessions) as tx:
        build = await builds.lock_build_to_finish(tx, build_id)
        if build.closed_at is not None:
            return False
        written = await builds.finish(tx, build, request, workspace_path, version)
        if await has_snapshot(tx, build_id, request.snapshot_number):
            await mark_final(tx, build_id, request.snapshot_number)
        await _announce(tx, build, request, written)
        await write_follow_up(tx, build)
        return True


async def close_stopped(sessions: Sessions, workflows: BuildWorkflows, build_id: uuid.UUID, fate: WorkflowFate) -> bool:
    """Close an open row as failed or cancelled, whose workflow has ended in this way without closing it.

    Returns:
        False if the row is closed.

    Raises:
        RPCError: Temporal does not answer.
    """
    status = Status.CANCELLED if fate is WorkflowFate.CANCELED else Status.FAILED
    own = await workflows.failure_of(build_id) if fate is WorkflowFate.FAILED else None
    reason = own or f"The build was stopped from outside ({fate}). Its snapshots are kept."

    async def close_leftovers() -> None:
        # In a transaction of its own: settling a call locks the call's row before the build's.
        async with transaction(sessions) as tx:
            await close_dangling_work(tx, build_id)

    await close_leftovers()  # before closing too: once the build is closed, nothing repeats this
    async with transaction(sessions) as tx:
        if not await builds.close_stopped_build(tx, build_id, status, reason):
            return False
        await append_events(tx, build_id, [StatusEvent(status=status, reason=reason)])
    await close_leftovers()
    return True


async def write_follow_up(tx: Transaction, build: Build) -> None:
    """Mark the project of a ready build as `mvp_built`, and add one business event for other systems. A repeat adds
    nothing."""
    await mark_mvp_built(tx, build.project_id)
    await add_artifact_event(tx, build)


async def _try_follow_up(tx: Transaction, build: Build) -> None:
    """Write the follow-up together with the row, so that it can't be lost with the workflow, as in an empty namespace.
    If it fails, the hook after the build tries again, and reports."""
    try:
        async with savepoint(tx):
            await write_follow_up(tx, build)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        log.warning("the hook after the build tries again", build_id=str(build.id), error=type(error).__name__)


async def _announce(tx: Transaction, build: Build, request: FinishBuild, version: int) -> None:
    ready = ReadyEvent(
        build_version=version, preview_url=request.preview_url, phases_completed=request.phases_completed
    )
    await append_events(tx, build.id, [ready, StatusEvent(status=Status.READY)])
