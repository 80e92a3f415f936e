"""Erasures of a founder's projects, with their certificates."""

import uuid

from fastapi import APIRouter, Request

from api.deps import CurrentUserId, IsOperator, ProcessResourcesDep, TransactionDep, address_of, needs
from api.erasure_schemas import ErasureList, ErasureOut
from api.responses import problems
from db.erasures import list_erasures
from db.session import Access
from db.transaction import request_transaction
from domain.errors import NotFound
from domain.identity import Scope
from services.erasure import require_account_erasure, require_erasure

router = APIRouter(prefix="/erasures", tags=["projects"])

open_router = APIRouter(prefix="/certificates", tags=["projects"])
"""For those whose account is gone."""

_MOST = 200


@router.get("", dependencies=[needs(Scope.ACCOUNT_READ)], summary="List erasures", responses=problems(422))
async def list_of_user(user_id: CurrentUserId, tx: TransactionDep) -> ErasureList:
    """The erasures that you have asked for, the newest first, at most 200."""
    return ErasureList(erasures=[ErasureOut.of(each) for each in await list_erasures(tx, user_id, _MOST)])


@router.get(
    "/{erasure_id}", dependencies=[needs(Scope.ACCOUNT_READ)], summary="Read an erasure", responses=problems(404, 422)
)
async def read(erasure_id: uuid.UUID, user_id: CurrentUserId, tx: TransactionDep, operator: IsOperator) -> ErasureOut:
    """How far an erasure is; once it has finished, its certificate, which stays."""
    return ErasureOut.of(await require_erasure(tx, user_id, erasure_id, of_anyone=operator))


@open_router.get("/{erasure_id}", summary="Read the certificate of an account", responses=problems(404, 422))
async def certificate(erasure_id: uuid.UUID, request: Request, resources: ProcessResourcesDep) -> ErasureOut:
    """How far the erasure of an account is; once it has finished, its certificate, which stays. Needs no credentials,
    as the account is gone: the id is enough. It has ids and counts, and nothing that someone wrote."""
    address = address_of(request, resources.settings)
    resources.limits.check_address(address)
    try:
        async with request_transaction(resources.sessions.acting(Access.everything())) as tx:
            return ErasureOut.of(await require_account_erasure(tx, erasure_id))
    except NotFound:
        await resources.limits.note_wrong_credentials(address)
        raise
