"""Certificates of what was done with a founder's data: archived, exported or erased."""

import uuid

from fastapi import APIRouter, Request

from api.certificate_schemas import CertificateList, CertificateOut
from api.deps import CurrentUserId, ProcessResourcesDep, TransactionDep, address_of, known_identity, needs
from api.erasure_schemas import ErasureOut
from api.responses import problems
from db.certificates import certificates_of_project
from db.models import Erasure
from db.projects import find_project
from db.session import Access
from db.transaction import request_transaction
from domain.errors import NotFound
from domain.identity import Scope
from services.certificates import require_certificate
from services.erasure import require_account_erasure

router = APIRouter(prefix="/projects", tags=["projects"])

open_router = APIRouter(prefix="/certificates", tags=["projects"])
"""Also for those whose account is gone."""

_MOST = 200


@router.get(
    "/{project_id}/certificates",
    dependencies=[needs(Scope.BUILDS_READ)],
    summary="List a project's certificates",
    responses=problems(404, 422),
)
async def list_of_project(project_id: uuid.UUID, user_id: CurrentUserId, tx: TransactionDep) -> CertificateList:
    """What left the database for the object store or was exported, by which rule or for whom, and when; the newest
    first, at most 200."""
    if await find_project(tx, user_id, project_id) is None:
        raise NotFound(f"There is no project {project_id}.")
    listed = await certificates_of_project(tx, project_id, _MOST)
    return CertificateList(certificates=[CertificateOut.of(each) for each in listed])


@open_router.get("/{certificate_id}", summary="Read a certificate", responses=problems(404, 422))
async def read(
    certificate_id: uuid.UUID, request: Request, resources: ProcessResourcesDep
) -> ErasureOut | CertificateOut:
    """A certificate that you may see. It has ids, counts and hashes, and nothing that someone wrote.

    That of an account's erasure, and how far it is, needs no credentials, as the account is gone: the id is enough.
    Others need the scope `account:read`."""
    address = address_of(request, resources.settings)
    resources.limits.check_address(address)
    try:
        async with request_transaction(resources.sessions.acting(Access.everything())) as tx:
            return ErasureOut.of(await require_account_erasure(tx, certificate_id))
    except NotFound:
        known = await known_identity(request)
        if known is None or not known[0].may(Scope.ACCOUNT_READ):
            await resources.limits.note_wrong_credentials(address)
            raise
    identity, own = known
    async with request_transaction(own.sessions) as tx:
        found = await require_certificate(tx, identity.user_id, certificate_id, of_anyone=identity.is_operator)
        return ErasureOut.of(found) if isinstance(found, Erasure) else CertificateOut.of(found)
