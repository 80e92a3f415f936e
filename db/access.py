"""Whose rows a user may see and change. Every query of founders' rows has the condition that `owned` returns.

Call it as `access.owned`, so that a test can replace it. Row-level security says the same once more in the database.
"""

import uuid

from sqlalchemy import ColumnElement, or_, select

from db.models import (
    ApiKey,
    Build,
    Certificate,
    Erasure,
    LedgerEntry,
    Membership,
    Organisation,
    Project,
    SignIn,
    StoredExport,
)
from db.transaction import Transaction
from domain.identity import Role

OwnedRows = (
    type[Organisation]
    | type[Project]
    | type[Build]
    | type[LedgerEntry]
    | type[ApiKey]
    | type[SignIn]
    | type[Erasure]
    | type[Certificate]
    | type[StoredExport]
)


def owned(rows: OwnedRows, user_id: str) -> ColumnElement[bool]:
    """The condition on rows that the user may see.

    Projects, and with them builds, belong to organisations, and each of their members sees them. Ledger entries, keys,
    sign-ins and erasures belong to one user. A certificate belongs to one, and to the members of its project. An
    export belongs to one user, as long as they are a member of its project.
    """
    if rows is Organisation:
        return Organisation.id.in_(select(Membership.org_id).where(Membership.user_id == user_id))
    if rows is Project:
        return Project.org_id.in_(select(Membership.org_id).where(Membership.user_id == user_id))
    if rows is Build:
        return Build.project_id.in_(select(Project.id).where(owned(Project, user_id)))
    if rows is Certificate:
        of_projects = Certificate.project_id.in_(select(Project.id).where(owned(Project, user_id)))
        return or_(Certificate.user_id == user_id, of_projects)
    if rows is StoredExport:
        of_projects = StoredExport.project_id.in_(select(Project.id).where(owned(Project, user_id)))
        return (StoredExport.user_id == user_id) & (StoredExport.project_id.is_(None) | of_projects)
    assert rows is LedgerEntry or rows is ApiKey or rows is SignIn or rows is Erasure
    return rows.user_id == user_id


async def find_role(tx: Transaction, user_id: str, project_id: uuid.UUID) -> Role | None:
    """Return the user's role in the project's organisation; None if the user is not a member."""
    role = await tx.session.scalar(
        select(Membership.role)
        .join(Project, Project.org_id == Membership.org_id)
        .where(Project.id == project_id, Membership.user_id == user_id)
    )
    return None if role is None else Role(role)
