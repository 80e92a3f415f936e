"""Push a build's code to a git server."""

import uuid

from fastapi import APIRouter, Request, Response

from api.deps import CurrentUserId, ResourcesDep, expensive, needs
from api.disconnects import ClientGone, run_while_connected
from api.responses import TAKES_BODY, problems
from api.schemas import NewPush, PushOut
from clients.git import Credentials
from db.transaction import request_transaction
from domain.audit import Action
from domain.identity import Scope
from services.audit import record
from services.push import PushRequest

router = APIRouter(prefix="/builds/{build_id}", tags=["workspaces"])

_CLIENT_CLOSED_REQUEST = 499
"""The status that servers log for it. No one reads it."""


@router.post(
    "/push",
    dependencies=[needs(Scope.BUILDS_WRITE), expensive],
    summary="Push the code to a git server",
    response_model=PushOut,
    responses=problems(*TAKES_BODY, 404, 409),
)
async def push(
    build_id: uuid.UUID, new: NewPush, user_id: CurrentUserId, resources: ResourcesDep, request: Request
) -> PushOut | Response:
    """Push the git history of a stored snapshot to a repository of yours. Nothing there is ever overwritten.

    The answer comes when the push has ended, which may take minutes. If you close the connection, the push ends. The
    token is used for this push only: it is in no row, log or event.
    """
    wanted = PushRequest(
        new.url, Credentials(new.username, new.token.get_secret_value()), branch=new.branch, snapshot=new.snapshot
    )
    try:
        pushed = await run_while_connected(request, resources.pushes.push(user_id, build_id, wanted))
    except ClientGone:
        return Response(status_code=_CLIENT_CLOSED_REQUEST)
    async with request_transaction(resources.sessions) as tx:
        await record(tx, Action.BUILD_PUSH, build_id=build_id, snapshot=pushed.snapshot)
    return PushOut.of(pushed)
