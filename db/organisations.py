"""Organisations and their members."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Select, and_, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from db import access
from db.models import Build, Membership, Organisation, Project
from db.transaction import Transaction
from domain.errors import NotFound
from domain.identity import CHANGING_ROLES, Role


@dataclass(frozen=True)
class OwnOrganisation:
    """An organisation, and the role of the user who has asked for it."""

    organisation: Organisation
    role: Role


_OLDEST_FIRST = Organisation.created_at, Organisation.id


async def list_organisations(tx: Transaction, user_id: str) -> list[OwnOrganisation]:
    """Return the user's organisations, the personal one first, then the oldest first."""
    rows = await tx.session.execute(
        _with_role(user_id).order_by(Organisation.personal_of.is_distinct_from(user_id), *_OLDEST_FIRST)
    )
    return [OwnOrganisation(organisation, Role(role)) for organisation, role in rows]


async def find_organisation(tx: Transaction, user_id: str, org_id: uuid.UUID) -> OwnOrganisation | None:
    """Return the organisation if it exists and the user is a member."""
    row = (await tx.session.execute(_with_role(user_id).where(Organisation.id == org_id))).one_or_none()
    return None if row is None else OwnOrganisation(row[0], Role(row[1]))


def _with_role(user_id: str) -> Select[Organisation, str]:
    # An outer join: `owned` alone decides which organisations the user sees.
    membership = and_(Membership.org_id == Organisation.id, Membership.user_id == user_id)
    role = func.coalesce(Membership.role, Role.VIEWER.value)
    return select(Organisation, role).outerjoin(Membership, membership).where(access.owned(Organisation, user_id))


async def count_owned(tx: Transaction, user_id: str) -> int:
    """Return how many organisations the user owns, the personal one aside."""
    owned = (
        select(func.count())
        .select_from(Membership)
        .join(Organisation, Organisation.id == Membership.org_id)
        .where(Membership.user_id == user_id, Membership.role == Role.OWNER, Organisation.personal_of.is_(None))
    )
    return int(await tx.session.scalar(owned) or 0)


async def insert_organisation(tx: Transaction, org_id: uuid.UUID, name: str, owner: str) -> None:
    """Insert an organisation with its first owner."""
    await tx.session.execute(insert(Organisation).values(id=org_id, name=name))
    await tx.session.execute(insert(Membership).values(org_id=org_id, user_id=owner, role=Role.OWNER))


async def rename(tx: Transaction, organisation: Organisation, name: str) -> None:
    """Give the organisation another name."""
    organisation.name = name
    await tx.session.flush()


# ---- members


async def lock_members(tx: Transaction, org_id: uuid.UUID, *, shared: bool = False) -> None:
    """Keep the organisation's members as they are until the transaction ends. Call it before reading them.

    Args:
        shared: for a transaction that only relies on them. It waits for changes, and makes changes wait.
    """
    function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
    # Not a lock of rows: row-level security lets only those lock a row who may change it.
    await tx.session.execute(text(f"select {function}(hashtextextended(:key, 0))"), {"key": f"members of {org_id}"})


async def list_members(tx: Transaction, org_id: uuid.UUID) -> list[Membership]:
    """Return the organisation's members, the oldest first."""
    return list(
        await tx.session.scalars(
            select(Membership).where(Membership.org_id == org_id).order_by(Membership.created_at, Membership.user_id)
        )
    )


async def set_role(tx: Transaction, org_id: uuid.UUID, user_id: str, role: Role) -> None:
    """Make the user a member with this role, or change the member's role.

    Raises:
        NotFound: there is no such user. The transaction can't go on.
    """
    new = insert(Membership).values(org_id=org_id, user_id=user_id, role=role)
    try:
        await tx.session.execute(new.on_conflict_do_update(index_elements=["org_id", "user_id"], set_={"role": role}))
    except IntegrityError as error:  # a query would not find the rows of other users: row-level security hides them
        raise NotFound(
            f"There is no user {user_id}. Users appear when they sign in, or when an operator makes them."
        ) from error


async def delete_member(tx: Transaction, org_id: uuid.UUID, user_id: str) -> None:
    """Remove a member."""
    await tx.session.execute(delete(Membership).where(Membership.org_id == org_id, Membership.user_id == user_id))


# ---- builds that members pay for


async def open_builds_of_member(tx: Transaction, org_id: uuid.UUID, user_id: str) -> list[Build]:
    """Return the open builds of the organisation's projects that the user has started."""
    builds = (
        select(Build)
        .join(Project, Project.id == Build.project_id)
        .where(Project.org_id == org_id, Build.user_id == user_id, Build.closed_at.is_(None))
    )
    return list(await tx.session.scalars(builds))


async def open_builds_of_outsiders(tx: Transaction, project_id: uuid.UUID, org_id: uuid.UUID) -> Sequence[Build]:
    """Return the project's open builds whose user may not change projects of this organisation."""
    payers = select(Membership.user_id).where(Membership.org_id == org_id, Membership.role.in_(CHANGING_ROLES))
    builds = select(Build).where(
        Build.project_id == project_id, Build.closed_at.is_(None), Build.user_id.not_in(payers)
    )
    return (await tx.session.scalars(builds)).all()
