"""Projects: the idea brief and the interview that a founder brings."""

import uuid
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

import services.projects
from api.build_facts import read_budgets, read_queue_places
from api.deps import (
    CurrentUserId,
    IdempotencyKey,
    IsOperator,
    ResourcesDep,
    TransactionDep,
    expensive,
    needs,
    new_project,
)
from api.erasure_schemas import ErasureOut, ProjectErasure
from api.errors import VERSION_CONFLICT, Problem
from api.file_response import bytes_of, stream_file
from api.paging import PAGE_MAX, ProjectsPage
from api.project_schemas import LatestBuild, ListedProject, ProjectList, VersionList, VersionOut, poster_of
from api.responses import TAKES_BODY, problems
from api.schemas import (
    BriefOut,
    InterviewOut,
    NewBrief,
    NewInterview,
    NewProject,
    ProjectChange,
    ProjectOrganisation,
    ProjectOut,
)
from db import projects
from db.latest_builds import last_sentences, latest_builds
from db.models import Project
from db.projects import ProjectRequest, VersionedProject
from db.transaction import Transaction, request_transaction
from db.versions import latest_versions, list_versions
from domain.audit import Action
from domain.brief import Interview
from domain.errors import NotFound
from domain.identity import Right, Scope
from services.audit import record
from services.builds import require_right
from services.erasure import erase_project
from services.export import export_project
from services.organisations import change_organisation

router = APIRouter(prefix="/projects", tags=["projects"])

IfMatch = Annotated[
    str | None,
    Header(
        pattern='^"?[0-9]{1,9}"?$',
        description="The ETag of the version that this replaces; like `version` in the body, for HTTP libraries.",
    ),
]


@router.post(
    "",
    dependencies=[needs(Scope.BUILDS_WRITE), new_project],
    status_code=201,
    summary="Create a project",
    responses=problems(*TAKES_BODY, 404, 409)
    | {200: {"model": ProjectOut, "description": "A repeat: the project exists already."}},
)
async def create(
    new: NewProject,
    user_id: CurrentUserId,
    tx: TransactionDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> ProjectOut:
    """Store the idea brief and the interview. A project without a brief can't be built yet. It belongs to an
    organisation, and every member of it sees the project."""
    name = new.name or (new.brief or {}).get("name", "").strip() or "Untitled"
    request = ProjectRequest(user_id, name, new.brief, new.interview, new.organisation_id, idempotency_key)
    project, is_new = await services.projects.create(tx, request)
    if not is_new:
        response.status_code = 200
    response.headers["Location"] = f"/v1/projects/{project.id}"
    return await _with_documents(tx, project)


@router.get("", dependencies=[needs(Scope.BUILDS_READ)], summary="List projects", responses=problems(422))
async def list_of_user(
    user_id: CurrentUserId,
    resources: ResourcesDep,
    page: ProjectsPage,
    operator: IsOperator,
    organisation_id: Annotated[uuid.UUID | None, Query(description="Only this organisation's projects.")] = None,
    archived: Annotated[bool, Query(description="true: the archived projects instead of the others.")] = False,
) -> ProjectList:
    """The projects of all the user's organisations, newest first, without their documents: each with its latest build
    and its latest version."""
    async with request_transaction(resources.sessions) as tx:
        rows = await projects.list_projects(tx, user_id, organisation_id, page.after, page.limit + 1, archived=archived)
        listed = await _with_latest(tx, user_id, rows[: page.limit], operator)
    last = rows[: page.limit][-1].project if len(rows) > page.limit else None
    return ProjectList(projects=listed, next_cursor=page.next_cursor(last))


@router.get(
    "/{project_id}", dependencies=[needs(Scope.BUILDS_READ)], summary="Read a project", responses=problems(404, 422)
)
async def read(project_id: uuid.UUID, user_id: CurrentUserId, tx: TransactionDep) -> ProjectOut:
    """The project with its idea brief and its latest interview."""
    project = _require(project_id, await projects.find_project(tx, user_id, project_id))
    return await _with_documents(tx, project)


@router.patch(
    "/{project_id}",
    dependencies=[needs(Scope.BUILDS_WRITE)],
    summary="Rename or archive a project",
    responses=problems(*TAKES_BODY, 404, 409),
)
async def change(project_id: uuid.UUID, new: ProjectChange, user_id: CurrentUserId, tx: TransactionDep) -> ProjectOut:
    """Change the project's name, archive it or un-archive it. A project with an open build can't be archived."""
    changed = await services.projects.change(tx, user_id, project_id, name=new.name, archived=new.archived)
    return await _with_documents(tx, changed)


@router.delete(
    "/{project_id}",
    dependencies=[needs(Scope.BUILDS_WRITE)],
    status_code=202,
    summary="Delete a project for good",
    responses=problems(*TAKES_BODY, 404, 409),
)
async def erase(
    project_id: uuid.UUID, body: ProjectErasure, user_id: CurrentUserId, resources: ResourcesDep, response: Response
) -> ErasureOut:
    """Delete the project with all that it has: briefs, interviews, builds, conversations, snapshots, images, previews,
    and what Temporal keeps of them. An open build is cancelled first. What its calls cost stays in your usage, without
    the build. Nothing of it can be brought back. `GET /v1/erasures/{id}` says how far this is, and then has the
    certificate."""
    erasure = await erase_project(resources.sessions, resources.workflows, user_id, project_id, body.name)
    response.headers["Location"] = f"/v1/erasures/{erasure.id}"
    return ErasureOut.of(erasure)


@router.get(
    "/{project_id}/export",
    dependencies=[needs(Scope.BUILDS_READ), expensive],
    summary="Export a project",
    response_class=StreamingResponse,
    responses=problems(404, 422) | bytes_of("application/zip"),
)
async def export(project_id: uuid.UUID, user_id: CurrentUserId, resources: ResourcesDep) -> StreamingResponse:
    """All that the project has, as a zip: briefs, interviews, and of each build the conversation, tool calls, messages,
    feed, checks, the tokens of its model calls, its snapshots, and the workspace of the last one. `manifest.json` has a
    hash of each file. Secrets are not in it."""
    made = await export_project(resources.sessions, resources.store, user_id, project_id)
    headers = {"Content-Disposition": f'attachment; filename="{made.file_name}"'}
    return await stream_file(made.content, "application/zip", headers)


@router.get(
    "/{project_id}/versions",
    dependencies=[needs(Scope.BUILDS_READ)],
    summary="List a project's versions",
    responses=problems(404, 422),
)
async def versions(
    project_id: uuid.UUID,
    user_id: CurrentUserId,
    tx: TransactionDep,
    before: Annotated[
        int | None, Query(ge=1, le=2**31 - 1, description="Only versions before this one; left out for the newest.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX, description="The number of versions at most.")] = 20,
) -> VersionList:
    """What the project's ready builds have made, the newest first. A new build may begin with any of them."""
    project = _require(project_id, await projects.find_project(tx, user_id, project_id))
    rows = await list_versions(tx, project_id, before, limit + 1)
    listed = [VersionOut.of(row, project.last_build_version) for row in rows[:limit]]
    return VersionList(versions=listed, next_before=listed[-1].version if len(rows) > limit else None)


@router.get(
    "/{project_id}/brief",
    dependencies=[needs(Scope.BUILDS_READ)],
    summary="Read the idea brief",
    responses=problems(404, 422),
)
async def read_brief(project_id: uuid.UUID, user_id: CurrentUserId, tx: TransactionDep, response: Response) -> BriefOut:
    """The idea brief as it was sent, with its version."""
    _require(project_id, await projects.find_project(tx, user_id, project_id))
    return await _brief(tx, project_id, response)


@router.put(
    "/{project_id}/brief",
    dependencies=[needs(Scope.BUILDS_WRITE)],
    summary="Replace the idea brief",
    responses=problems(*TAKES_BODY, 404, 409),
)
async def replace_brief(
    project_id: uuid.UUID,
    new: NewBrief,
    user_id: CurrentUserId,
    tx: TransactionDep,
    response: Response,
    if_match: IfMatch = None,
) -> BriefOut:
    """Make this the brief of future builds. Builds that have started keep the version that they started with."""
    _require(project_id, await projects.lock_project(tx, user_id, project_id))
    await require_right(tx, user_id, project_id, Right.CHANGE)
    before = await projects.find_brief(tx, project_id)
    version = _next_version(before.version if before else 0, new.version, if_match)
    await projects.replace_brief(tx, project_id, version, new.brief)
    await record(tx, Action.BRIEF_REPLACE, project_id=project_id, version=version)
    return await _brief(tx, project_id, response)


@router.get(
    "/{project_id}/interview",
    dependencies=[needs(Scope.BUILDS_READ)],
    summary="Read the interview",
    responses=problems(404, 422),
)
async def read_interview(
    project_id: uuid.UUID, user_id: CurrentUserId, tx: TransactionDep, response: Response
) -> InterviewOut:
    """The latest understanding session, with its version."""
    _require(project_id, await projects.find_project(tx, user_id, project_id))
    return await _interview(tx, project_id, response)


@router.put(
    "/{project_id}/interview",
    dependencies=[needs(Scope.BUILDS_WRITE)],
    summary="Replace the interview",
    responses=problems(*TAKES_BODY, 404, 409),
)
async def replace_interview(
    project_id: uuid.UUID,
    new: NewInterview,
    user_id: CurrentUserId,
    tx: TransactionDep,
    response: Response,
    if_match: IfMatch = None,
) -> InterviewOut:
    """Make this the interview of future builds. Earlier ones are kept for the builds that started with them."""
    _require(project_id, await projects.lock_project(tx, user_id, project_id))
    await require_right(tx, user_id, project_id, Right.CHANGE)
    before = await projects.find_interview(tx, project_id)
    version = _next_version(before.number if before else 0, new.version, if_match)
    await projects.add_interview(tx, project_id, version, new.interview)
    await record(tx, Action.INTERVIEW_REPLACE, project_id=project_id, version=version)
    return await _interview(tx, project_id, response)


@router.put(
    "/{project_id}/organisation",
    dependencies=[needs(Scope.BUILDS_WRITE)],
    summary="Move to another organisation",
    responses=problems(*TAKES_BODY, 404, 409),
)
async def move(
    project_id: uuid.UUID, new: ProjectOrganisation, user_id: CurrentUserId, tx: TransactionDep
) -> ProjectOut:
    """Move the project, with its builds and secrets, to another organisation, of which you are an owner as well. From
    then on its members see the project, and those of the former one do not."""
    return await _with_documents(tx, await change_organisation(tx, user_id, project_id, new.organisation_id))


def _require(project_id: uuid.UUID, project: Project | None) -> Project:
    if project is None:
        raise NotFound(f"There is no project {project_id}.")
    return project


def _next_version(current: int, read: int | None, if_match: str | None) -> int:
    """The version to store.

    Raises:
        Problem: someone has stored another version since the sender read theirs.
    """
    expected = [] if read is None else [read]
    if if_match is not None:
        expected.append(int(if_match.strip('"')))
    if any(version != current for version in expected):
        raise Problem(
            VERSION_CONFLICT,
            f"You have read version {expected[0]}, and the current one is {current}. Read it, then send yours again.",
            more={"current_version": current},
        )
    return current + 1


async def _brief(tx: Transaction, project_id: uuid.UUID, response: Response) -> BriefOut:
    row = await projects.find_brief(tx, project_id)
    if row is None:
        raise NotFound(f"Project {project_id} has no idea brief yet.")
    response.headers["ETag"] = f'"{row.version}"'
    return BriefOut(brief=row.body, version=row.version, updated_at=row.updated_at)


async def _interview(tx: Transaction, project_id: uuid.UUID, response: Response) -> InterviewOut:
    row = await projects.find_interview(tx, project_id)
    if row is None:
        raise NotFound(f"Project {project_id} has no interview yet.")
    response.headers["ETag"] = f'"{row.number}"'
    interview = Interview(questions=row.questions, answers=row.answers)
    return InterviewOut(interview=interview, version=row.number, updated_at=row.created_at)


async def _with_latest(
    tx: Transaction, user_id: str, rows: Sequence[VersionedProject], operator: bool
) -> list[ListedProject]:
    """The projects with what is latest of each, in a constant number of statements for each user who pays."""
    ids = [row.project.id for row in rows]
    builds = await latest_builds(tx, ids)
    latest = await latest_versions(tx, ids)
    opened = [each.build for each in builds.values() if each.build.closed_at is None]
    budgets = await read_budgets(tx, user_id, {build.user_id for build in opened}, operator)
    sentences = await last_sentences(tx, [build.id for build in opened])
    places = await read_queue_places(tx, opened)

    def listed(row: VersionedProject) -> ListedProject:
        build, version = builds.get(row.project.id), latest.get(row.project.id)
        shown = (
            None
            if build is None
            else LatestBuild.of(
                build,
                None if build.build.closed_at is not None else budgets[build.build.user_id],
                sentences.get(build.build.id),
                places.get(build.build.id),
            )
        )
        made = None if version is None else VersionOut.of(version, row.project.last_build_version)
        poster = None if made is None else made.poster
        if poster is None and build is not None and build.gate is not None:
            poster = poster_of(build.gate)
        return ListedProject.of(row, shown, made, poster)

    return [listed(row) for row in rows]


async def _with_documents(tx: Transaction, project: Project) -> ProjectOut:
    brief = await projects.find_brief(tx, project.id)
    interview = await projects.find_interview(tx, project.id)
    return ProjectOut.of(project, brief, interview)
