"""Starting a build: its row first, then its workflow."""

import hashlib
import json
import uuid
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncSession
from temporalio.service import RPCError

from api.deps import Services
from api.schemas import NewBuild
from clients.build_workflows import BuildToStart
from db import builds
from db.models import Build, Project, User
from db.projects import find_project
from db.users import ensure_user
from domain.errors import (
    AccountSuspended,
    DatabaseUnavailable,
    KeyReused,
    KillSwitchOn,
    Misconfigured,
    NotFound,
    OpenBuildExists,
    TemporalUnavailable,
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Started:
    """A build that the request made, or, where `is_new` is False, the one that an earlier request of its kind made."""

    build_id: uuid.UUID
    is_new: bool


async def start_build(
    services: Services, user_id: str, project_id: uuid.UUID, wanted: NewBuild, idempotency_key: str | None
) -> Started:
    """Commit the build's row, then start its workflow.

    A crash between the two, or a Temporal that goes away there, leaves a queued row, which the reaper or a repeat of
    the request starts.

    Raises:
        NotFound, Refused, Conflict, DependencyUnavailable: refused; no row was made.
    """
    reachable = await services.workflows.is_reachable()
    new = builds.NewBuild(
        project_id=project_id,
        user_id=user_id,
        goal=wanted.goal,
        idempotency_key=idempotency_key,
        body_hash=_body_hash(project_id, wanted),
        sleep_policy=wanted.sleep_policy,
        max_nights=wanted.max_nights,
    )
    async with services.sessions.transaction() as session:
        project = await find_project(session, user_id, project_id)
        if project is None:
            raise NotFound(f"There is no project {project_id}.")
        user = await ensure_user(session, user_id)
        build, is_new = await _find_or_insert(services, session, new, user, reachable)
    if build.started_at is None and build.closed_at is None:
        await _start_workflow(services, build, project, user)
    return Started(build.id, is_new)


async def start_if_unstarted(services: Services, build: Build) -> None:
    """Start what a crash left as a row without a workflow."""
    if build.started_at is not None or build.closed_at is not None:
        return
    async with services.sessions.transaction() as session:
        project = await find_project(session, build.user_id, build.project_id)
        assert project is not None, "a build's row names a project"
        user = await ensure_user(session, build.user_id)
    await _start_workflow(services, build, project, user)


async def _start_workflow(services: Services, build: Build, project: Project, user: User) -> None:
    """Start the workflow of a committed row, and note that. What fails here, the reaper repeats."""
    to_start = BuildToStart(build.id, user.id, project.id, project.name, user.plan, build.goal)
    try:
        await services.workflows.start(to_start)
        async with services.sessions.transaction() as session:
            await builds.mark_started(session, build.id)
    except (RPCError, RuntimeError, Misconfigured, DatabaseUnavailable) as error:
        log.warning("the build stays as it is until the reaper starts it", build_id=str(build.id), error=str(error))


async def _find_or_insert(
    services: Services, session: AsyncSession, new: builds.NewBuild, user: User, reachable: bool
) -> tuple[Build, bool]:
    earlier = await _find_earlier(session, new)
    if earlier is not None:
        return earlier, False
    if user.suspended:
        raise AccountSuspended("The account is suspended, so no build can be started. Ask whoever runs this service.")
    if not services.settings.autonomous_agent:
        raise KillSwitchOn("Builds are switched off here (AUTONOMOUS_AGENT is false). Nothing was stored; try later.")
    if not reachable:
        raise TemporalUnavailable
    build = await builds.insert_build(session, new)
    if build is not None:
        return build, True
    # Somebody was faster. Their row is committed by now, and this transaction reads what is committed.
    earlier = await _find_earlier(session, new)
    if earlier is not None:
        return earlier, False
    raise await _open_build(session, new.project_id)


async def _find_earlier(session: AsyncSession, new: builds.NewBuild) -> Build | None:
    if new.idempotency_key is None:
        return None
    earlier = await builds.find_build_by_key(session, new.user_id, new.idempotency_key)
    if earlier is not None and earlier.body_hash != new.body_hash:
        raise KeyReused(
            "This Idempotency-Key was used for another request. Use a new key for a new build.",
            {"build_id": str(earlier.id)},
        )
    return earlier


async def _open_build(session: AsyncSession, project_id: uuid.UUID) -> OpenBuildExists:
    build = await builds.find_open_build(session, project_id)
    if build is None:
        return OpenBuildExists("Another build of this project ended just now. Send the request again.")
    return OpenBuildExists(
        f"Build {build.id} of this project is {build.status}. Wait for it or cancel it before you start another.",
        {"build_id": str(build.id)},
    )


def _body_hash(project_id: uuid.UUID, wanted: NewBuild) -> str:
    """Of what was asked for. What is left as it is by default does not count, so that new fields change no hash."""
    asked: list[Any] = [str(project_id), wanted.goal]
    if further := wanted.model_dump(mode="json", exclude={"goal"}, exclude_defaults=True):
        asked.append(further)
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
