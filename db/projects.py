"""Founders' projects with their idea briefs and interviews."""

import hashlib
import json
import uuid
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from db import access
from db.models import Artifact, Project, UnderstandingSession
from db.paging import Position, page_after
from db.transaction import Transaction
from domain.brief import Interview

IDEA_BRIEF = "idea_brief"
"""The type of the artifact that a build reads."""


@dataclass(frozen=True)
class ProjectRequest:
    """A founder's request for a project. With an idempotency key, a repeat of it makes no second project.

    `org_id`: whose it is; by default it is the user's own.
    """

    user_id: str
    name: str
    brief: dict[str, Any] | None
    interview: Interview | None
    org_id: uuid.UUID | None = None
    idempotency_key: str | None = None

    @property
    def body_hash(self) -> str:
        """Tells a repeat from another request with the same key."""
        interview = None if self.interview is None else self.interview.model_dump(mode="json")
        organisation = None if self.org_id is None else str(self.org_id)
        body = [self.name, self.brief, interview, organisation]
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


async def create_project(
    tx: Transaction,
    user_id: str,
    name: str,
    brief: dict[str, Any] | None,
    interview: Interview | None,
    org_id: uuid.UUID | None = None,
) -> Project:
    """Store a project with its brief and interview. `org_id`: whose it is; by default it is the user's own."""
    project = await insert_project(tx, ProjectRequest(user_id, name, brief, interview, org_id))
    assert project is not None, "only a key can be taken"
    return project


async def insert_project(tx: Transaction, request: ProjectRequest) -> Project | None:
    """Store a project with its brief and interview; None if the idempotency key is taken.

    Waits until a concurrent request with the same key has committed or rolled back.
    """
    project_id = uuid.uuid4()
    projects = await tx.session.scalars(
        upsert(Project)
        .values(
            id=project_id,
            org_id=request.org_id,
            user_id=request.user_id,
            name=request.name,
            idempotency_key=request.idempotency_key,
            body_hash=None if request.idempotency_key is None else request.body_hash,
        )
        .on_conflict_do_nothing()
        .returning(Project)
    )
    project = projects.one_or_none()
    if project is not None and request.brief is not None:
        await replace_brief(tx, project_id, 1, request.brief)
    if project is not None and request.interview is not None:
        await add_interview(tx, project_id, 1, request.interview)
    return project


async def find_project_by_key(tx: Transaction, user_id: str, idempotency_key: str) -> Project | None:
    """Return the project that the user's request with this key created, if the user may still see it."""
    return (
        await tx.session.scalars(
            select(Project).where(
                Project.user_id == user_id,
                Project.idempotency_key == idempotency_key,
                access.owned(Project, user_id),
            )
        )
    ).one_or_none()


@dataclass(frozen=True)
class VersionedProject:
    """A project with the versions of its brief and interview; None for one that it does not have yet."""

    project: Project
    brief_version: int | None
    interview_version: int | None


_BRIEF_VERSION = (
    select(Artifact.version)
    .where(Artifact.project_id == Project.id, Artifact.type == IDEA_BRIEF)
    .correlate(Project)
    .scalar_subquery()
)
_INTERVIEW_VERSION = (
    select(func.max(UnderstandingSession.number))
    .where(UnderstandingSession.project_id == Project.id)
    .correlate(Project)
    .scalar_subquery()
)


async def list_projects(
    tx: Transaction,
    user_id: str,
    org_id: uuid.UUID | None,
    after: Position | None,
    limit: int,
    *,
    archived: bool = False,
) -> list[VersionedProject]:
    """Return up to `limit` of the projects that the user may see, newest first; only this organisation's if one is
    named. Either those that are archived or the others."""
    query = select(Project, _BRIEF_VERSION, _INTERVIEW_VERSION).where(
        access.owned(Project, user_id), Project.archived_at.is_not(None) if archived else Project.archived_at.is_(None)
    )
    if org_id is not None:
        query = query.where(Project.org_id == org_id)
    rows = await tx.session.execute(page_after(query, Project, after, limit))
    return [VersionedProject(*row) for row in rows]


async def lock_project(
    tx: Transaction, user_id: str, project_id: uuid.UUID, *, against_builds: bool = False
) -> Project | None:
    """Like `find_project`, and lock the project until the transaction ends.

    `against_builds`: wait for builds that are being inserted, and keep further ones waiting.
    """
    return (
        await tx.session.scalars(
            select(Project)
            .where(Project.id == project_id, access.owned(Project, user_id))
            .with_for_update(key_share=not against_builds)
        )
    ).one_or_none()


async def replace_brief(tx: Transaction, project_id: uuid.UUID, version: int, brief: dict[str, Any]) -> None:
    """Replace the idea brief by its next version. The caller has locked the project.

    A build that has started keeps the brief that it started with: its system prompt contains it.
    """
    if version == 1:
        await tx.session.execute(
            insert(Artifact).values(id=uuid.uuid4(), project_id=project_id, type=IDEA_BRIEF, body=brief)
        )
        return
    await tx.session.execute(
        update(Artifact)
        .where(Artifact.project_id == project_id, Artifact.type == IDEA_BRIEF)
        .values(version=version, body=brief, updated_at=func.now())
    )


async def add_interview(tx: Transaction, project_id: uuid.UUID, version: int, interview: Interview) -> None:
    """Store the interview's next version. The caller has locked the project. Builds refer to earlier versions."""
    await tx.session.execute(
        insert(UnderstandingSession).values(
            id=uuid.uuid4(),
            project_id=project_id,
            number=version,
            questions=[question.model_dump() for question in interview.questions],
            answers=interview.answers,
        )
    )


async def find_project(tx: Transaction, user_id: str, project_id: uuid.UUID) -> Project | None:
    """Return the project if it exists and this user may see it."""
    return (
        await tx.session.scalars(select(Project).where(Project.id == project_id, access.owned(Project, user_id)))
    ).one_or_none()


async def change_project(tx: Transaction, project: Project, *, name: str | None, archived: bool | None) -> None:
    """Rename a locked project, archive it or un-archive it. None leaves it as it is."""
    if name is not None:
        project.name = name
    if archived is not None and archived != (project.archived_at is not None):
        project.archived_at = func.now() if archived else None
    await tx.session.flush()
    await tx.session.refresh(project)


async def is_archived(tx: Transaction, project_id: uuid.UUID) -> bool:
    """Whether the project is archived, by what is committed now."""
    return await tx.session.scalar(select(Project.archived_at).where(Project.id == project_id)) is not None


async def move_project(tx: Transaction, project: Project, org_id: uuid.UUID) -> None:
    """Give a locked project to another organisation."""
    project.org_id = org_id
    await tx.session.flush()


async def find_brief(tx: Transaction, project_id: uuid.UUID) -> Artifact | None:
    """Return the project's idea brief, if it has one."""
    return (
        await tx.session.scalars(select(Artifact).where(Artifact.project_id == project_id, Artifact.type == IDEA_BRIEF))
    ).one_or_none()


async def find_interview(tx: Transaction, project_id: uuid.UUID) -> UnderstandingSession | None:
    """Return the project's latest understanding session, if it has one."""
    return (
        await tx.session.scalars(
            select(UnderstandingSession)
            .where(UnderstandingSession.project_id == project_id)
            .order_by(UnderstandingSession.number.desc())
            .limit(1)
        )
    ).one_or_none()


async def mark_mvp_built(tx: Transaction, project_id: uuid.UUID) -> None:
    """Lock the project's row until the transaction ends, and mark the project as `mvp_built`.

    Raises:
        NoResultFound: it does not exist.
    """
    project = await tx.session.get_one(Project, project_id, with_for_update=True)
    project.status = "mvp_built"
    await tx.session.flush()
