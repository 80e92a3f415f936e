"""Erasures of all users, for operators."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from api.deps import CurrentIdentity, ResourcesDep, TransactionDep, expensive, needs
from api.erasure_schemas import AccountErasure, ErasureOut, ErasurePage
from api.paging import ErasuresPage
from api.responses import TAKES_BODY, problems
from db.erasures import list_erasures
from db.paging import Position
from db.session import Access
from domain import user_id
from domain.identity import Scope
from services.erasure import erase_user

router = APIRouter(prefix="/ops", tags=["operators"])

_User = Annotated[
    str, Path(min_length=1, max_length=user_id.MAX_CHARACTERS, pattern=user_id.PATTERN, description="The user's id.")
]


@router.get(
    "/erasures", summary="List all users' erasures", dependencies=[needs(Scope.OPS_READ)], responses=problems(422)
)
async def erasures(page: ErasuresPage, tx: TransactionDep) -> ErasurePage:
    """What was asked to be erased, by whom, and how far that is; with certificates, the newest first. To compare with
    after a restore of the database: a backup has what was erased after it was made."""
    after = None if page.after is None else (page.after.created_at, page.after.id)
    found = await list_erasures(tx, None, page.limit + 1, after)
    listed = found[: page.limit]
    last = listed[-1] if len(found) > page.limit else None
    next_cursor = None if last is None else page.cursors.encode(Position(last.requested_at, last.id))
    return ErasurePage(erasures=[ErasureOut.of(each) for each in listed], next_cursor=next_cursor)


@router.post(
    "/users/{user}/erase",
    status_code=202,
    summary="Erase a user for good",
    dependencies=[needs(Scope.OPS_WRITE), expensive],
    responses=problems(*TAKES_BODY, 409),
)
async def erase(
    user: _User, body: AccountErasure, identity: CurrentIdentity, resources: ResourcesDep, response: Response
) -> ErasureOut:
    """Erase a founder: the account, and all projects that no one else is a member of. The account is suspended at once.
    What calls have cost stays in the ledger, under a random id. The only owner of an organisation with other members
    has to make someone else an owner first. A repeat changes nothing."""
    sessions = resources.sessions.acting(Access.everything())
    erasure = await erase_user(sessions, resources.workflows, user, identity.actor, confirmed=body.user_id)
    response.headers["Location"] = f"/v1/erasures/{erasure.id}"
    return ErasureOut.of(erasure)
