"""Founders' projects, with what they brought: the idea brief and the interview."""

import uuid
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Artifact, Project, UnderstandingSession
from db.users import ensure_user
from domain.brief import Interview

IDEA_BRIEF = "idea_brief"
"""The type of the artifact that a build reads."""


async def create_project(
    session: AsyncSession, user_id: str, name: str, brief: dict[str, Any] | None, interview: Interview | None
) -> Project:
    """Store a project with its brief and interview, and its user where that is a new one."""
    await ensure_user(session, user_id)
    project_id = uuid.uuid4()
    projects = await session.scalars(
        insert(Project).values(id=project_id, user_id=user_id, name=name).returning(Project)
    )
    project = projects.one()
    if brief is not None:
        await session.execute(
            insert(Artifact).values(id=uuid.uuid4(), project_id=project_id, type=IDEA_BRIEF, body=brief)
        )
    if interview is not None:
        await session.execute(
            insert(UnderstandingSession).values(
                id=uuid.uuid4(),
                project_id=project_id,
                number=1,
                questions=[question.model_dump() for question in interview.questions],
                answers=interview.answers,
            )
        )
    return project


async def find_project(session: AsyncSession, user_id: str, project_id: uuid.UUID) -> Project | None:
    """The project, if it exists and is this user's."""
    return (
        await session.scalars(select(Project).where(Project.id == project_id, Project.user_id == user_id))
    ).one_or_none()


async def find_brief(session: AsyncSession, project_id: uuid.UUID) -> Artifact | None:
    """The project's idea brief."""
    return (
        await session.scalars(select(Artifact).where(Artifact.project_id == project_id, Artifact.type == IDEA_BRIEF))
    ).one_or_none()


async def find_interview(session: AsyncSession, project_id: uuid.UUID) -> UnderstandingSession | None:
    """The project's latest understanding session."""
    return (
        await session.scalars(
            select(UnderstandingSession)
            .where(UnderstandingSession.project_id == project_id)
            .order_by(UnderstandingSession.number.desc())
            .limit(1)
        )
    ).one_or_none()
