"""Create a project, rename it, archive it, and un-archive it."""

import uuid

from db.builds import find_open_build
from db.erasures import is_being_erased
from db.models import Project
from db.projects import ProjectRequest, change_project, find_project_by_key, insert_project, lock_project
from db.transaction import Transaction
from db.users import require_user
from domain.audit import Action
from domain.errors import Conflict, KeyReused, NotFound, OpenBuildExists
from domain.identity import Right
from services.audit import record
from services.builds import require_right
from services.organisations import require_may_create_projects


async def create(tx: Transaction, request: ProjectRequest) -> tuple[Project, bool]:
    """Create a project, and whether it is new. A repeat with the same key makes nothing and returns the first project.

    Raises:
        NotFound, Refused: there is no such organisation, or the user may not create projects in it.
        KeyReused: the key was used for another request.
    """
    await require_user(tx, request.user_id)
    if request.org_id is not None:
        await require_may_create_projects(tx, request.user_id, request.org_id)
    project = await insert_project(tx, request)
    if project is not None:
        await record(tx, Action.PROJECT_CREATE, org_id=project.org_id, project_id=project.id)
        return project, True
    # The row of the first request is committed by now, and this transaction reads what is committed.
    earlier = await find_project_by_key(tx, request.user_id, request.idempotency_key or "")
    if earlier is None or earlier.body_hash != request.body_hash:
        raise KeyReused(
            "This Idempotency-Key was used for another request. Use a new key for a new project.",
            {} if earlier is None else {"project_id": str(earlier.id)},
        )
    return earlier, False


async def change(
    tx: Transaction, user_id: str, project_id: uuid.UUID, *, name: str | None, archived: bool | None
) -> Project:
    """Change a project. None leaves a field as it is.

    Raises:
        NotFound, Refused: there is no such project, or the user may not change it.
        OpenBuildExists: it is to be archived and has an open build.
        Conflict: it is being deleted.
    """
    project = await lock_project(tx, user_id, project_id, against_builds=True)
    if project is None:
        raise NotFound(f"There is no project {project_id}.")
    await require_right(tx, user_id, project_id, Right.CHANGE)
    if await is_being_erased(tx, project_id):
        raise Conflict("The project is being deleted, so it can't be changed any more.")
    build = await find_open_build(tx, project_id) if archived else None
    if build is not None:
        raise OpenBuildExists(
            f"Build {build.id} of this project is {build.status}. Wait for it or cancel it before you archive the "
            "project.",
            {"build_id": str(build.id)},
        )
    changed = [field for field, value in (("name", name), ("archived", archived)) if value is not None]
    await change_project(tx, project, name=name, archived=archived)
    await record(tx, Action.PROJECT_CHANGE, project_id=project_id, changed=changed)
    return project
