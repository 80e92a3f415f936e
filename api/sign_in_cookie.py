"""The cookie of a sign-in: its name, its attributes, and reading it.

Over https its name has the prefix `__Host-`: browsers then take it only from this host and only over https. On one
machine over http that prefix is not allowed, and cookies of 127.0.0.1 are shared by all its ports. So the name has the
deployment's id there, and two stacks do not sign each other out.
"""

from fastapi import Request, Response

from db.deployment import read_deployment_id
from db.session import Access, Sessions
from db.transaction import Transaction, request_transaction
from domain.errors import CredentialRefused
from services.sign_ins import LIFETIME, sign_out
from settings import Settings

_SECURE_NAME = "__Host-cofounder"
_NAME = "cofounder"
_ID_DIGITS = 12


async def cookie_name(request: Request, settings: Settings, sessions: Sessions) -> str:
    """The cookie's name.

    Raises:
        DatabaseUnavailable: it does not answer, and has not been asked before.
    """
    if is_secure(settings):
        return _SECURE_NAME
    state = request.app.state
    if not hasattr(state, "deployment_id"):
        async with request_transaction(sessions.acting(Access.everything())) as tx:
            deployment_id = await read_deployment_id(tx)
        if deployment_id is None:  # not bound yet: the API or a worker does that when it starts
            return _NAME
        state.deployment_id = deployment_id
    return f"{_NAME}-{state.deployment_id.hex[:_ID_DIGITS]}"


def read_cookie(request: Request, name: str) -> str | None:
    """The token in the cookie, if there is one.

    Raises:
        CredentialRefused: there are several. One may have been put there by another program.
    """
    pairs = [pair.partition("=") for header in request.headers.getlist("cookie") for pair in header.split(";")]
    tokens = [token.strip() for key, _, token in pairs if key.strip() == name]
    if len(tokens) > 1:
        raise CredentialRefused(
            f"Your browser sent the cookie {name} more than once. Delete the cookies of this address, and sign in "
            "again.",
            "cookie-repeated",
        )
    return tokens[0] if tokens and tokens[0] else None


def set_cookie(response: Response, name: str, token: str, settings: Settings) -> None:
    """Let the browser keep the token as long as the sign-in can live."""
    response.set_cookie(
        name,
        token,
        max_age=int(LIFETIME.total_seconds()),
        path="/",
        secure=is_secure(settings),
        httponly=True,
        samesite="lax",
    )


def delete_cookie(response: Response, name: str, settings: Settings) -> None:
    """Let the browser forget the token."""
    response.delete_cookie(name, path="/", secure=is_secure(settings), httponly=True, samesite="lax")


async def end_sign_in_of_browser(tx: Transaction, request: Request, name: str) -> None:
    """End the sign-in whose token the browser sends, if it sends one: it signs out, or signs in again."""
    try:
        token = read_cookie(request, name)
    except CredentialRefused:
        return
    if token is not None:
        await sign_out(tx, token)


def is_secure(settings: Settings) -> bool:
    """Whether browsers reach the API over https."""
    return settings.public_url.startswith("https:")
