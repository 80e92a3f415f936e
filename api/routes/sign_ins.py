"""Sign-ins of browsers: links that work once, cookies, and signing out."""

import uuid

from fastapi import APIRouter, Request, Response

from api.deps import (
    CurrentIdentity,
    CurrentUserId,
    ProcessResourcesDep,
    ResourcesDep,
    TransactionDep,
    address_of,
    needs,
)
from api.identity_schemas import (
    NewSignInLink,
    SignedInOut,
    SignInCode,
    SignInLinkOut,
    SignInList,
    SignInOut,
)
from api.origins import check_own_page
from api.responses import TAKES_BODY, problems
from api.sign_in_cookie import cookie_name, delete_cookie, end_sign_in_of_browser, set_cookie
from db.session import Access
from db.transaction import request_transaction
from domain.errors import SignInLinkRefused
from domain.identity import Scope
from services import sign_ins

router = APIRouter(tags=["identity"])

open_router = APIRouter(tags=["identity"])
"""Routes for those who are not identified yet."""


@router.post(
    "/sign-in-links",
    status_code=201,
    summary="Make a sign-in link",
    dependencies=[needs(Scope.ACCOUNT_WRITE)],
    responses=problems(*TAKES_BODY, 404),
)
async def make_link(
    new: NewSignInLink, identity: CurrentIdentity, resources: ResourcesDep, tx: TransactionDep
) -> SignInLinkOut:
    """Make a link with which a browser can sign in as the user: once, within ten minutes. Anyone who has it can do
    that, so keep it to yourself. If it was made with an API key, the sign-in ends when the key does."""
    made = await sign_ins.make_code(tx, identity, new.scopes)
    url = f"{resources.settings.public_url}/sign-in#code={made.code}"
    return SignInLinkOut(url=url, expires_at=made.expires_at)


@open_router.post("/sign-ins", status_code=201, summary="Sign in", responses=problems(*TAKES_BODY, 401, 403))
async def sign_in(
    given: SignInCode, request: Request, response: Response, resources: ProcessResourcesDep
) -> SignedInOut:
    """Use up the code of a sign-in link. The response sets the cookie; no token is needed.

    The cookie always holds a new token. A sign-in that the browser had before is ended."""
    settings = resources.settings
    check_own_page(request, settings.public_url)
    address = address_of(request, settings)
    resources.limits.check_address(address)
    name = await cookie_name(request, settings, resources.sessions)
    try:
        async with request_transaction(resources.sessions.acting(Access.everything())) as tx:
            new = await sign_ins.sign_in_with_code(tx, given.code)
            await end_sign_in_of_browser(tx, request, name)
    except SignInLinkRefused:
        await resources.limits.note_wrong_credentials(address)
        raise
    set_cookie(response, name, new.token, settings)
    return SignedInOut(user=new.sign_in.user_id, sign_in=SignInOut.of(new.sign_in, str(new.sign_in.id)))


@open_router.delete("/sign-ins/current", status_code=204, summary="Sign out", responses=problems(401, 403, 422))
async def sign_out(request: Request, resources: ProcessResourcesDep) -> Response:
    """Delete the browser's sign-in and its cookie. Succeeds if the browser is signed out already."""
    settings = resources.settings
    check_own_page(request, settings.public_url)
    name = await cookie_name(request, settings, resources.sessions)
    async with request_transaction(resources.sessions.acting(Access.everything())) as tx:
        await end_sign_in_of_browser(tx, request, name)
    response = Response(status_code=204)
    delete_cookie(response, name, settings)
    return response


@router.get("/sign-ins", summary="List sign-ins", dependencies=[needs(Scope.ACCOUNT_READ)], responses=problems(422))
async def read_all(identity: CurrentIdentity, tx: TransactionDep) -> SignInList:
    """The browsers in which the user is signed in. The one used last comes first."""
    rows = await sign_ins.list_sign_ins(tx, identity.user_id)
    return SignInList(sign_ins=[SignInOut.of(row, identity.credential_id) for row in rows])


@router.delete(
    "/sign-ins/{sign_in_id}",
    status_code=204,
    summary="End a sign-in",
    dependencies=[needs(Scope.ACCOUNT_WRITE)],
    responses=problems(404, 422),
)
async def end(sign_in_id: uuid.UUID, user_id: CurrentUserId, tx: TransactionDep) -> Response:
    """Sign a browser of the user out. Its next request is refused."""
    await sign_ins.end_sign_in(tx, user_id, sign_in_id)
    return Response(status_code=204)
