"""Signing in through an identity provider: the browser is sent there, and comes back with a code."""

from html import escape
from urllib.parse import urlencode

import structlog
from fastapi import APIRouter, Request, Response

from api.deps import ProcessResourcesDep, Resources, address_of
from api.errors import NOT_FOUND, Problem
from api.routes.pages import other_address, page, redirect
from api.sign_in_cookie import cookie_name, delete_cookie, end_sign_in_of_browser, is_secure, read_cookie, set_cookie
from clients.oidc.provider import IdentityProvider
from db.session import Access
from db.transaction import request_transaction
from domain.errors import CofounderError, CredentialRefused, DependencyUnavailable
from services import provider_sign_ins
from services.provider_sign_ins import LIFETIME, Answer

router = APIRouter(include_in_schema=False)

_log = structlog.get_logger(__name__)


@router.get("/sign-in/{name}")
async def start(name: str, request: Request, resources: ProcessResourcesDep, to: str | None = None) -> Response:
    """Send the browser to the provider. `to`: the path of ours to which it goes afterwards."""
    provider = _provider(resources, name)
    public_url = resources.settings.public_url
    if other_address(request, resources.settings) is not None:  # the provider sends the browser back to the other one
        return redirect(f"{public_url}/sign-in/{name}?{urlencode({'to': to or '/'})}")
    resources.limits.check_address(address_of(request, resources.settings))
    every = resources.sessions.acting(Access.everything())
    try:
        cookie = await _cookie_name(request, resources)
        started = await provider_sign_ins.start(every, provider, to, _redirect_uri(resources, name))
    except CofounderError as error:
        return _failed(provider, error)
    response = redirect(started.url)
    response.set_cookie(
        cookie,
        started.secret,
        max_age=int(LIFETIME.total_seconds()),
        path="/",
        secure=is_secure(resources.settings),
        httponly=True,
        samesite="lax",  # the provider sends the browser back from another site
    )
    return response


@router.get("/sign-in/{name}/callback")
async def finish(
    name: str,
    request: Request,
    resources: ProcessResourcesDep,
    state: str | None = None,
    code: str | None = None,
    iss: str | None = None,
    error: str | None = None,
) -> Response:
    """Sign in who comes back from the provider. The sign-in's token is always a new one."""
    provider = _provider(resources, name)
    settings = resources.settings
    address = address_of(request, settings)
    resources.limits.check_address(address)
    every = resources.sessions.acting(Access.everything())
    try:
        cookie = await _cookie_name(request, resources)
        answer = Answer(state=state, code=code, issuer=iss, error=error)
        new, path = await provider_sign_ins.finish(
            every, provider, read_cookie(request, cookie), answer, _redirect_uri(resources, name)
        )
        name_of_sign_in = await cookie_name(request, settings, resources.sessions)
        async with request_transaction(every) as tx:
            await end_sign_in_of_browser(tx, request, name_of_sign_in)
    except CofounderError as failure:
        if isinstance(failure, CredentialRefused):
            await resources.limits.note_wrong_credentials(address)
        return _failed(provider, failure)
    response = redirect(path)
    set_cookie(response, name_of_sign_in, new.token, settings)
    delete_cookie(response, cookie, settings)
    return response


def _provider(resources: Resources, name: str) -> IdentityProvider:
    provider = resources.providers.named(name)
    if provider is None:
        raise Problem(NOT_FOUND, f"No one can sign in through {name} here. Look at /sign-in for the ways to sign in.")
    return provider


def _redirect_uri(resources: Resources, name: str) -> str:
    """Of the setting, never of the request's `Host`: to this address the provider sends codes."""
    return f"{resources.settings.public_url}/sign-in/{name}/callback"


async def _cookie_name(request: Request, resources: Resources) -> str:
    return f"{await cookie_name(request, resources.settings, resources.sessions)}-at-provider"


def _failed(provider: IdentityProvider, error: CofounderError) -> Response:
    _log.info("a sign-in through an identity provider failed", issuer=provider.issuer.name, reason=str(error))
    status = 503 if isinstance(error, DependencyUnavailable) else 403
    again = f"/sign-in/{provider.issuer.name}"
    return page("sign_in_failed.html", status, detail=escape(str(error)), again=again)
