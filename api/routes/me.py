"""Who makes the request."""

from fastapi import APIRouter

from api.deps import CurrentIdentity, TransactionDep, needs
from api.identity_schemas import MeOut
from api.responses import problems
from db.organisations import list_organisations
from db.users import require_user
from domain.identity import Scope

router = APIRouter(tags=["identity"])


@router.get("/me", summary="Read who you are", dependencies=[needs(Scope.ACCOUNT_READ)], responses=problems(404, 422))
async def read(identity: CurrentIdentity, tx: TransactionDep) -> MeOut:
    """The user of the request, what it was identified by, what it may do, and the user's organisations."""
    user = await require_user(tx, identity.user_id)
    return MeOut.of(identity, user, await list_organisations(tx, user.id))
