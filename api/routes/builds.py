"""Start, list, read, cancel and wake builds."""

import uuid
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.build_facts import read_budgets, read_queue_places
from api.deps import (
    CurrentUserId,
    IdempotencyKey,
    IsOperator,
    Resources,
    ResourcesDep,
    expensive,
    needs,
)
from api.paging import BuildsPage, Page
from api.responses import TAKES_BODY, problems
from api.schemas import BuildList, BuildOut, NewBuild
from db import builds
from db.builds import BuildFilter, BuildRequest, CostedBuild, Start
from db.latest_builds import last_sentences
from db.projects import find_project
from db.transaction import Transaction, request_transaction
from domain.build_options import BuildOptions
from domain.errors import NotFound
from domain.identity import Scope
from domain.status import Status
from observing.traces import note_build_start
from services.builds import cancel_build, finish_build, start_build, wake_build

router = APIRouter(tags=["builds"])


@router.post(
    "/projects/{project_id}/builds",
    dependencies=[needs(Scope.BUILDS_WRITE), expensive],
    status_code=201,
    summary="Start a build",
    responses=problems(*TAKES_BODY, 403, 404, 409)
    | {200: {"model": BuildOut, "description": "A repeat: the build exists already."}},
)
async def start(
    project_id: uuid.UUID,
    new: NewBuild,
    user_id: CurrentUserId,
    resources: ResourcesDep,
    response: Response,
    operator: IsOperator,
    idempotency_key: IdempotencyKey = None,
) -> BuildOut:
    """Store the build and start it. A project has at most one open build."""
    chosen = None if new.start_from is None else Start(new.start_from.build_id, new.start_from.snapshot)
    request = BuildRequest(project_id, user_id, new.goal, idempotency_key, BuildOptions.chosen_in(new), chosen)
    started = await start_build(
        resources.sessions, resources.workflows, request, autonomous_agent=resources.settings.autonomous_agent
    )
    if started.is_new:
        note_build_start(started.build_id)
    response.headers["Location"] = f"/v1/builds/{started.build_id}"
    if not started.is_new:
        response.status_code = 200
    return await _read(resources, user_id, started.build_id, operator)


@router.get(
    "/projects/{project_id}/builds",
    dependencies=[needs(Scope.BUILDS_READ)],
    summary="List a project's builds",
    responses=problems(404, 422),
)
async def list_of_project(
    project_id: uuid.UUID, user_id: CurrentUserId, resources: ResourcesDep, page: BuildsPage, operator: IsOperator
) -> BuildList:
    """Newest first."""
    async with request_transaction(resources.sessions) as tx:
        if await find_project(tx, user_id, project_id) is None:
            raise NotFound(f"There is no project {project_id}.")
    return await _list(resources, user_id, BuildFilter(project_id=project_id), page, operator)


@router.get("/builds", dependencies=[needs(Scope.BUILDS_READ)], summary="List builds", responses=problems(422))
async def list_of_user(
    user_id: CurrentUserId,
    resources: ResourcesDep,
    page: BuildsPage,
    operator: IsOperator,
    status: Annotated[list[Status], Query(description="Only builds with one of these.")] = [],  # noqa: B006
    project_id: Annotated[uuid.UUID | None, Query(description="Only this project's builds.")] = None,
    open: Annotated[bool | None, Query(description="true: only open builds; false: only ended ones.")] = None,
    started_by_me: Annotated[bool, Query(description="true: only builds that you have started.")] = False,
) -> BuildList:
    """The builds of all your projects, newest first: also those that other members have started. A project that does
    not exist has none."""
    only = BuildFilter(status, project_id, open, user_id if started_by_me else None)
    return await _list(resources, user_id, only, page, operator)


async def _list(resources: Resources, user_id: str, only: BuildFilter, page: Page, operator: bool) -> BuildList:
    async with request_transaction(resources.sessions) as tx:
        rows = await builds.list_builds(tx, user_id, only, page.after, page.limit + 1)
        listed = await _with_facts(tx, user_id, rows[: page.limit], operator)
    last = rows[: page.limit][-1].build if len(rows) > page.limit else None
    return BuildList(builds=listed, next_cursor=page.next_cursor(last))


@router.get(
    "/builds/{build_id}", dependencies=[needs(Scope.BUILDS_READ)], summary="Read a build", responses=problems(404, 422)
)
async def read(build_id: uuid.UUID, user_id: CurrentUserId, resources: ResourcesDep, operator: IsOperator) -> BuildOut:
    """The build's current state."""
    return await _read(resources, user_id, build_id, operator)


@router.post(
    "/builds/{build_id}/cancel",
    dependencies=[needs(Scope.BUILDS_WRITE)],
    status_code=202,
    summary="Cancel",
    responses=problems(404, 409, 422),
)
async def cancel(
    build_id: uuid.UUID, user_id: CurrentUserId, resources: ResourcesDep, operator: IsOperator
) -> BuildOut:
    """Ask the build to end. It takes a snapshot of the workspace and releases its sandbox first."""
    await cancel_build(resources.sessions, resources.workflows, user_id, build_id)
    return await _read(resources, user_id, build_id, operator)


@router.post(
    "/builds/{build_id}/wake",
    dependencies=[needs(Scope.BUILDS_WRITE)],
    status_code=202,
    summary="Wake",
    responses=problems(404, 409, 422),
)
async def wake(build_id: uuid.UUID, user_id: CurrentUserId, resources: ResourcesDep, operator: IsOperator) -> BuildOut:
    """Make a build that sleeps or waits check again whether it can continue."""
    await wake_build(resources.sessions, resources.workflows, user_id, build_id)
    return await _read(resources, user_id, build_id, operator)


@router.post(
    "/builds/{build_id}/finish",
    dependencies=[needs(Scope.BUILDS_WRITE)],
    status_code=202,
    summary="Finish",
    responses=problems(404, 409, 422),
)
async def finish(
    build_id: uuid.UUID, user_id: CurrentUserId, resources: ResourcesDep, operator: IsOperator
) -> BuildOut:
    """Have the product checked as it is, as soon as the agent's current turn has ended. It becomes ready if it passes;
    otherwise the agent reads why, and goes on."""
    await finish_build(resources.sessions, resources.workflows, user_id, build_id)
    return await _read(resources, user_id, build_id, operator)


async def _read(resources: Resources, user_id: str, build_id: uuid.UUID, operator: bool) -> BuildOut:
    async with request_transaction(resources.sessions) as tx:
        build = await builds.read_build(tx, user_id, build_id)
        if build is None:
            raise NotFound(f"There is no build {build_id}.")
        return (await _with_facts(tx, user_id, [build], operator))[0]


async def _with_facts(tx: Transaction, user_id: str, read: Sequence[CostedBuild], operator: bool) -> list[BuildOut]:
    rows = [each.build for each in read]
    budgets = await read_budgets(tx, user_id, {row.user_id for row in rows}, operator)
    sentences = await last_sentences(tx, [row.id for row in rows if row.closed_at is None])
    places = await read_queue_places(tx, rows)
    return [
        BuildOut.of(
            each,
            budgets[each.build.user_id],
            operator=operator,
            narration=sentences.get(each.build.id),
            queue_place=places.get(each.build.id),
        )
        for each in read
    ]
