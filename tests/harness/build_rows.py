"""Rows of builds whose workflows are never started, for tests of what builds share."""

import uuid
from datetime import UTC, datetime

from db.builds import BuildRequest, insert_build
from db.models import Build
from db.projects import create_project
from db.session import Sessions
from db.transaction import transaction
from db.users import ensure_user
from tests.harness.worker import sample_brief

NO_WORKFLOW = datetime(2200, 1, 1, tzinfo=UTC)
"""The creation time of a build that has a row but no workflow. With an earlier one, the reaper of any worker on the
same stack would start the build, which would then take over the test's sandbox."""


async def owner_of(sessions: Sessions, build_id: uuid.UUID) -> str:
    """Return the id of the build's user."""
    async with transaction(sessions) as tx:
        return (await tx.session.get_one(Build, build_id)).user_id


async def builds_of(sessions: Sessions, user_id: str, number: int) -> list[uuid.UUID]:
    """Insert this many builds of a user, each of a project of its own, and return their ids."""
    ids = []
    for _ in range(number):
        async with transaction(sessions) as tx:
            await ensure_user(tx, user_id)
            project = await create_project(tx, user_id, "Test", sample_brief(), None)
            build = await insert_build(tx, BuildRequest(project.id, user_id, "Test it."))
            assert build is not None
            build.created_at = NO_WORKFLOW
            ids.append(build.id)
    return ids
