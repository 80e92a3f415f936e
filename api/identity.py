"""Find out who makes a request. `api/deps.py` asks here once per request.

A request is identified by `Authorization: Bearer …`, with one of the static tokens, an API key, or a
JWT of an identity provider; without that header, by the cookie of a sign-in.
"""

import secrets
from time import monotonic

from fastapi import Request
from pydantic import SecretStr

from api.errors import AUTHENTICATE, REFUSED, UNAUTHORIZED, Problem
from api.sign_in_cookie import cookie_name, read_cookie
from clients.oidc.provider import IdentityProviders
from db.session import Access, Sessions
from db.transaction import request_transaction
from db.users import ensure_user
from domain.api_keys import is_key
from domain.identity import FOUNDER_SCOPES, OPERATOR_SCOPES, How, Identity, Scope
from domain.tokens import looks_like_token
from services.api_keys import identify_key
from services.identities import token_scopes, user_of_token
from services.sign_ins import identify_sign_in
from settings import Settings

_MADE_SECONDS = 60.0
"""Make the user of the static tokens again after this many seconds, unless they are there."""

_WHAT_TO_SEND = (
    "Send the API's token or an API key in the header `Authorization: Bearer …`. In a browser, sign in with a link: "
    "`cofounder open` makes one."
)


async def identify(
    request: Request,
    settings: Settings,
    sessions: Sessions,
    providers: IdentityProviders,
    token: str | None,
    named_user: str | None,
) -> Identity:
    """Who makes the request.

    Args:
        token: what follows `Bearer` in the header; None without one.
        named_user: the user whom the header X-Cofounder-User names.

    Raises:
        Problem: no one that this API knows.
        CredentialRefused: a key, a token or a sign-in that does not work.
        Refused: someone whom an identity provider knows, who may not become a user.
        IssuerUnavailable: the identity provider of the token can't be asked for its keys.
        NoRowSecurity: this process may not serve the user.
        DatabaseUnavailable: that can't be found out now.
    """
    every = sessions.acting(Access.everything())
    identity = None
    if token is not None:
        identity = (
            await _of_static_token(request, settings, every, token)
            or await _of_api_key(every, token)
            or await _of_provider(every, providers, token)
        )
    elif "authorization" not in request.headers:
        identity = await _of_sign_in(request, settings, every)
    if identity is None:
        raise unauthorized(_WHAT_TO_SEND)
    identity = _acting_for(identity, named_user)
    await request.app.state.resources.row_security.require(identity.user_id)
    return identity


def unauthorized(detail: str) -> Problem:
    """The problem of a request that no one known makes."""
    return Problem(UNAUTHORIZED, detail, headers=AUTHENTICATE)


async def _of_static_token(request: Request, settings: Settings, every: Sessions, token: str) -> Identity | None:
    if _equal(token, settings.api_operator_token):
        scopes, how, actor = OPERATOR_SCOPES, How.OPERATOR_TOKEN, "operator"
    elif _equal(token, settings.api_token):
        scopes, how, actor = FOUNDER_SCOPES, How.API_TOKEN, settings.api_user
    else:
        return None
    await _make_api_user(request, every, settings.api_user)
    return Identity(settings.api_user, scopes, how, actor)


async def _make_api_user(request: Request, every: Sessions, user_id: str) -> None:
    """Make the user of the static tokens, at the first request of this process, and again if they were erased."""
    if monotonic() - getattr(request.app.state, "api_user_made_at", -_MADE_SECONDS) < _MADE_SECONDS:
        return
    async with request_transaction(every) as tx:
        await ensure_user(tx, user_id)
    request.app.state.api_user_made_at = monotonic()


async def _of_api_key(every: Sessions, token: str) -> Identity | None:
    if not is_key(token):
        return None
    async with request_transaction(every) as tx:
        return await identify_key(tx, token)


async def _of_provider(every: Sessions, providers: IdentityProviders, token: str) -> Identity | None:
    if not providers.take_bearer_tokens or not looks_like_token(token):
        return None
    claims = await providers.verify_bearer(token)
    async with request_transaction(every) as tx:
        user_id = await user_of_token(tx, claims)
    return Identity(user_id, token_scopes(claims), How.JWT, user_id, f"{claims.issuer.name}:{claims.subject}")


async def _of_sign_in(request: Request, settings: Settings, every: Sessions) -> Identity | None:
    if "cookie" not in request.headers:
        return None
    token = read_cookie(request, await cookie_name(request, settings, every))
    if token is None:
        return None
    async with request_transaction(every) as tx:
        return await identify_sign_in(tx, token)


def _equal(token: str, secret: SecretStr | None) -> bool:
    return secret is not None and secrets.compare_digest(token.encode(), secret.get_secret_value().encode())


def _acting_for(identity: Identity, user_id: str | None) -> Identity:
    """The identity, for the user whom an operator names in a header.

    Raises:
        Problem: someone else names another user.
    """
    if user_id is None or user_id == identity.user_id:
        return identity
    if not identity.may(Scope.OPS_WRITE):
        raise Problem(
            REFUSED,
            "X-Cofounder-User names another user, and only operators may act for others. Leave the header out, or send "
            "the API's API_OPERATOR_TOKEN as the token.",
        )
    return Identity(user_id, identity.scopes, identity.how, identity.actor, identity.credential_id)
