"""Create organisations, change their members, and move projects between them.

A user's personal organisation has no other members: what one creates without naming an organisation stays one's own. To
share a project, create an organisation, add members, and move the project there.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from clients.build_workflows import BuildWorkflows
from db import builds, organisations
from db.models import Build, Membership, Organisation, Project
from db.organisations import OwnOrganisation
from db.projects import find_project, lock_project, move_project
from db.session import Sessions
from db.transaction import Transaction, request_transaction
from db.users import suspended_among
from domain.audit import Action
from domain.errors import Conflict, NotFound, Refused
from domain.identity import CHANGING_ROLES, Role
from domain.organisations import MAX_MEMBERS, MAX_OWNED, check_owner_remains
from services.audit import record
from services.builds import signal_cancel


async def require_organisation(tx: Transaction, user_id: str, org_id: uuid.UUID) -> OwnOrganisation:
    """The organisation, if the user is a member.

    Raises:
        NotFound: there is no such organisation, or the user is not a member.
    """
    own = await organisations.find_organisation(tx, user_id, org_id)
    if own is None:
        raise NotFound(f"There is no organisation {org_id}.")
    return own


async def create_organisation(tx: Transaction, user_id: str, name: str) -> OwnOrganisation:
    """Create an organisation. The user is its owner.

    Raises:
        Conflict: the user owns as many as a user may.
    """
    if await organisations.count_owned(tx, user_id) >= MAX_OWNED:
        raise Conflict(f"You own {MAX_OWNED} organisations, the most that a user may. Use one of them.")
    org_id = uuid.uuid4()
    await organisations.insert_organisation(tx, org_id, name, user_id)
    await record(tx, Action.ORGANISATION_CREATE, org_id=org_id)
    return await require_organisation(tx, user_id, org_id)


async def rename_organisation(tx: Transaction, user_id: str, org_id: uuid.UUID, name: str) -> OwnOrganisation:
    """Give the organisation another name.

    Raises:
        NotFound, Refused: the user is not a member, or not an owner.
    """
    own = await _require_owner(tx, user_id, org_id, "rename it")
    await organisations.rename(tx, own.organisation, name)
    await record(tx, Action.ORGANISATION_CHANGE, org_id=org_id, changed=["name"])
    return own


async def require_may_create_projects(tx: Transaction, user_id: str, org_id: uuid.UUID) -> None:
    """Refuse a user who can't create projects in the organisation.

    Raises:
        NotFound, Refused: the user is not a member, or only a viewer.
    """
    own = await require_organisation(tx, user_id, org_id)
    if own.role not in CHANGING_ROLES:
        raise Refused(
            f"You are a viewer in {own.organisation.name} and can't create projects there. Ask one of its owners to "
            "make you a member."
        )


# ---- members


@dataclass(frozen=True)
class ChangedMember:
    """A member after a change. `cancelled`: the open builds that end, since their user may not change them any more."""

    membership: Membership
    is_new: bool
    cancelled: Sequence[Build] = ()


async def set_member(
    sessions: Sessions, workflows: BuildWorkflows, user_id: str, org_id: uuid.UUID, member_id: str, role: Role
) -> ChangedMember:
    """Add an existing user to the organisation, or change a member's role.

    The open builds of a member who becomes a viewer are cancelled: viewers can't steer the builds that they pay for.

    Raises:
        NotFound, Refused, Conflict, DatabaseUnavailable: nothing was changed.
        TemporalUnavailable: it is changed; the reaper cancels the builds.
    """
    async with request_transaction(sessions) as tx:
        await organisations.lock_members(tx, org_id)
        own = await _require_owner(tx, user_id, org_id, "change its members")
        _require_shareable(own.organisation, member_id)
        roles = await _roles(tx, org_id)
        check_owner_remains(roles, member_id, role, suspended=await suspended_among(tx, roles))
        if member_id not in roles and len(roles) >= MAX_MEMBERS:
            raise Conflict(f"The organisation has {MAX_MEMBERS} members, the most it may have. Remove one first.")
        cancelled = [] if role in CHANGING_ROLES else await _cancel_builds(tx, org_id, member_id)
        await organisations.set_role(tx, org_id, member_id, role)
        action = Action.MEMBER_CHANGE if member_id in roles else Action.MEMBER_ADD
        await record(tx, action, user_id=member_id, org_id=org_id, role=role, cancelled_builds=len(cancelled))
        [membership] = [each for each in await organisations.list_members(tx, org_id) if each.user_id == member_id]
    await _signal_cancels(sessions, workflows, cancelled)
    return ChangedMember(membership, member_id not in roles, cancelled)


async def remove_member(
    sessions: Sessions, workflows: BuildWorkflows, user_id: str, org_id: uuid.UUID, member_id: str
) -> Sequence[Build]:
    """Remove a member from the organisation, or leave it. Returns the open builds that end.

    Those are the open builds of its projects that the member has started: the member pays for them and would not see
    them any more. Their workspaces are kept as snapshots.

    Raises:
        NotFound, Refused, Conflict, DatabaseUnavailable: nothing was changed.
        TemporalUnavailable: it is changed; the reaper cancels the builds.
    """
    async with request_transaction(sessions) as tx:
        await organisations.lock_members(tx, org_id)
        own = await require_organisation(tx, user_id, org_id)
        if member_id != user_id:
            _require_role_of_owner(own, "change its members")
        _require_shareable(own.organisation, member_id)
        roles = await _roles(tx, org_id)
        if member_id not in roles:
            raise NotFound(f"{member_id} is not a member of the organisation.")
        check_owner_remains(roles, member_id, None, suspended=await suspended_among(tx, roles))
        cancelled = await _cancel_builds(tx, org_id, member_id)
        await record(tx, Action.MEMBER_REMOVE, user_id=member_id, org_id=org_id, cancelled_builds=len(cancelled))
        await organisations.delete_member(tx, org_id, member_id)
    await _signal_cancels(sessions, workflows, cancelled)
    return cancelled


async def _cancel_builds(tx: Transaction, org_id: uuid.UUID, member_id: str) -> list[Build]:
    open_builds = await organisations.open_builds_of_member(tx, org_id, member_id)
    return [build for build in open_builds if await builds.request_cancel(tx, build.id)]


async def _signal_cancels(sessions: Sessions, workflows: BuildWorkflows, cancelled: Sequence[Build]) -> None:
    for build in cancelled:
        await signal_cancel(sessions, workflows, build)


async def _roles(tx: Transaction, org_id: uuid.UUID) -> dict[str, Role]:
    return {each.user_id: Role(each.role) for each in await organisations.list_members(tx, org_id)}


async def _require_owner(tx: Transaction, user_id: str, org_id: uuid.UUID, to_do: str) -> OwnOrganisation:
    own = await require_organisation(tx, user_id, org_id)
    _require_role_of_owner(own, to_do)
    return own


def _require_role_of_owner(own: OwnOrganisation, to_do: str) -> None:
    if own.role is not Role.OWNER:
        raise Refused(f"You are a {own.role} in {own.organisation.name}, and only an owner can {to_do}. Ask one.")


def _require_shareable(organisation: Organisation, member_id: str) -> None:
    if organisation.personal_of is None:
        return
    if organisation.personal_of == member_id:
        raise Conflict("This is a personal organisation. Its user is its owner, and stays so.")
    raise Conflict(
        "This is a personal organisation, which has no other members. Create an organisation, add members to it, and "
        "move projects there to share them."
    )


# ---- projects


async def change_organisation(tx: Transaction, user_id: str, project_id: uuid.UUID, org_id: uuid.UUID) -> Project:
    """Move a project to another organisation. The user is an owner of both.

    Raises:
        NotFound, Refused: the user does not see one of them, or is not its owner.
        Conflict: someone pays for an open build of the project who could not change it afterwards.
    """
    before = await find_project(tx, user_id, project_id)
    if before is None:
        raise _no_project(project_id)
    for each in sorted({before.org_id, org_id}):  # in one order, so that no two transactions wait for each other
        await organisations.lock_members(tx, each)
    project = await lock_project(tx, user_id, project_id)
    if project is None:
        raise _no_project(project_id)
    await _require_owner(tx, user_id, project.org_id, "move its projects")
    target = await _require_owner(tx, user_id, org_id, "move projects to it")
    if outsiders := await organisations.open_builds_of_outsiders(tx, project_id, org_id):
        build = outsiders[0]
        raise Conflict(
            f"Build {build.id} of this project is {build.status}, and {build.user_id}, who pays for it, could not "
            f"change it in {target.organisation.name}. Wait for the build, cancel it, or make {build.user_id} a member "
            "there.",
            {"build_id": str(build.id)},
        )
    await record(tx, Action.PROJECT_MOVE, org_id=org_id, project_id=project_id, from_org_id=project.org_id)
    await move_project(tx, project, org_id)
    return project


def _no_project(project_id: uuid.UUID) -> NotFound:
    return NotFound(f"There is no project {project_id}.")
