"""Rename a project, archive it, and un-archive it."""

import uuid

from db.builds import find_open_build
from db.models import Project
from db.projects import change_project, lock_project
from db.transaction import Transaction
from domain.audit import Action
from domain.errors import NotFound, OpenBuildExists
from domain.identity import Right
from services.audit import record
from services.builds import require_right


async def change(
    tx: Transaction, user_id: str, project_id: uuid.UUID, *, name: str | None, archived: bool | None
) -> Project:
    """Change a project. None leaves a field as it is.

    Raises:
        NotFound, Refused: there is no such project, or the user may not change it.
        OpenBuildExists: it is to be archived and has an open build.
    """
    project = await lock_project(tx, user_id, project_id, against_builds=True)
    if project is None:
        raise NotFound(f"There is no project {project_id}.")
    await require_right(tx, user_id, project_id, Right.CHANGE)
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
