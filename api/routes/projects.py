"""Projects: what a founder brings."""

import uuid

from fastapi import APIRouter, Response

from api.deps import CurrentUserId, Transaction
from api.responses import problems
from api.schemas import NewProject, ProjectOut
from db import projects
from domain.errors import NotFound

router = APIRouter(prefix="/projects", tags=["projects"])


@router.post("", status_code=201, summary="Create a project", responses=problems(413, 422))
async def create(new: NewProject, user_id: CurrentUserId, session: Transaction, response: Response) -> ProjectOut:
    """Store the idea brief and the interview. Without a brief the project can't be built yet."""
    name = new.name or (new.brief or {}).get("name", "").strip() or "Untitled"
    project = await projects.create_project(session, user_id, name, new.brief, new.interview)
    response.headers["Location"] = f"/v1/projects/{project.id}"
    return await _with_what_was_brought(session, project.id, user_id)


@router.get("/{project_id}", summary="Read a project", responses=problems(404, 422))
async def read(project_id: uuid.UUID, user_id: CurrentUserId, session: Transaction) -> ProjectOut:
    """The project with its idea brief and its latest interview."""
    return await _with_what_was_brought(session, project_id, user_id)


async def _with_what_was_brought(session: Transaction, project_id: uuid.UUID, user_id: str) -> ProjectOut:
    project = await projects.find_project(session, user_id, project_id)
    if project is None:
        raise NotFound(f"There is no project {project_id}.")
    brief = await projects.find_brief(session, project_id)
    interview = await projects.find_interview(session, project_id)
    return ProjectOut.of(project, brief, interview)
