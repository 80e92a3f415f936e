"""Organisations and their members."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Path, Response

from api.deps import CurrentUserId, ResourcesDep, TransactionDep, needs
from api.responses import TAKES_BODY, problems
from api.schemas import (
    ChangedMemberOut,
    MemberList,
    MemberOut,
    NewOrganisation,
    NewRole,
    OrganisationList,
    OrganisationOut,
    RemovedMemberOut,
)
from db.organisations import list_members, list_organisations
from db.users import require_user
from domain import user_id as user_ids
from domain.identity import Scope
from services import organisations

router = APIRouter(prefix="/organisations", tags=["organisations"])

Member = Annotated[
    str,
    Path(min_length=1, max_length=user_ids.MAX_CHARACTERS, pattern=user_ids.PATTERN, description="The user's id."),
]


@router.post(
    "",
    dependencies=[needs(Scope.ACCOUNT_WRITE)],
    status_code=201,
    summary="Create an organisation",
    responses=problems(*TAKES_BODY, 404, 409),
)
async def create(
    new: NewOrganisation, user_id: CurrentUserId, tx: TransactionDep, response: Response
) -> OrganisationOut:
    """Create an organisation, of which you are the owner. Add members to share its projects with them."""
    await require_user(tx, user_id)
    own = await organisations.create_organisation(tx, user_id, new.name)
    response.headers["Location"] = f"/v1/organisations/{own.organisation.id}"
    return OrganisationOut.of(own)


@router.get("", dependencies=[needs(Scope.ACCOUNT_READ)], summary="List organisations", responses=problems(422))
async def list_of_user(user_id: CurrentUserId, tx: TransactionDep) -> OrganisationList:
    """Your organisations, with your role in each. One is personal: it is yours alone, and your projects belong to it
    unless you name another."""
    return OrganisationList(organisations=[OrganisationOut.of(each) for each in await list_organisations(tx, user_id)])


@router.get(
    "/{organisation_id}",
    dependencies=[needs(Scope.ACCOUNT_READ)],
    summary="Read an organisation",
    responses=problems(404, 422),
)
async def read(organisation_id: uuid.UUID, user_id: CurrentUserId, tx: TransactionDep) -> OrganisationOut:
    """The organisation with your role in it."""
    return OrganisationOut.of(await organisations.require_organisation(tx, user_id, organisation_id))


@router.patch(
    "/{organisation_id}",
    dependencies=[needs(Scope.ACCOUNT_WRITE)],
    summary="Rename an organisation",
    responses=problems(*TAKES_BODY, 404),
)
async def rename(
    organisation_id: uuid.UUID, new: NewOrganisation, user_id: CurrentUserId, tx: TransactionDep
) -> OrganisationOut:
    """Give the organisation another name. Only its owners may."""
    return OrganisationOut.of(await organisations.rename_organisation(tx, user_id, organisation_id, new.name))


@router.get(
    "/{organisation_id}/members",
    dependencies=[needs(Scope.ACCOUNT_READ)],
    summary="List the members",
    responses=problems(404, 422),
)
async def members(organisation_id: uuid.UUID, user_id: CurrentUserId, tx: TransactionDep) -> MemberList:
    """The members with their roles, oldest first. Every member may see them."""
    await organisations.require_organisation(tx, user_id, organisation_id)
    return MemberList(members=[MemberOut.of(each) for each in await list_members(tx, organisation_id)])


@router.put(
    "/{organisation_id}/members/{user:path}",
    dependencies=[needs(Scope.ACCOUNT_WRITE)],
    summary="Add a member or change their role",
    responses=problems(*TAKES_BODY, 404, 409) | {201: {"model": ChangedMemberOut, "description": "A new member."}},
)
async def set_member(
    organisation_id: uuid.UUID,
    user: Member,
    new: NewRole,
    user_id: CurrentUserId,
    resources: ResourcesDep,
    response: Response,
) -> ChangedMemberOut:
    """Only owners may, and the last owner stays one. A personal organisation has no other members.

    If a member becomes a viewer, the open builds that they have started end: they could not steer what they pay for.
    """
    changed = await organisations.set_member(
        resources.sessions, resources.workflows, user_id, organisation_id, user, new.role
    )
    if changed.is_new:
        response.status_code = 201
    member = MemberOut.of(changed.membership)
    return ChangedMemberOut(**member.model_dump(), cancelled_builds=[build.id for build in changed.cancelled])


@router.delete(
    "/{organisation_id}/members/{user:path}",
    dependencies=[needs(Scope.ACCOUNT_WRITE)],
    summary="Remove a member, or leave",
    responses=problems(404, 409, 422),
)
async def remove_member(
    organisation_id: uuid.UUID, user: Member, user_id: CurrentUserId, resources: ResourcesDep
) -> RemovedMemberOut:
    """Owners may remove members, and each member themselves. The last owner can't leave.

    The organisation's projects do not exist for them any more, at once, and the open builds there that they have
    started end.
    """
    cancelled = await organisations.remove_member(
        resources.sessions, resources.workflows, user_id, organisation_id, user
    )
    return RemovedMemberOut(user=user, cancelled_builds=[build.id for build in cancelled])
