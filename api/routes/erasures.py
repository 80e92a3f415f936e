"""Erasures of a founder's projects, with their certificates."""

import uuid

from fastapi import APIRouter

from api.deps import CurrentUserId, IsOperator, TransactionDep, needs
from api.erasure_schemas import ErasureList, ErasureOut
from api.responses import problems
from db.erasures import list_erasures
from domain.identity import Scope
from services.erasure import require_erasure

router = APIRouter(prefix="/erasures", tags=["projects"])

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
