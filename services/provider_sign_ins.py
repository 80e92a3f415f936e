"""Signs a browser in through an identity provider: sends it there with a state, and checks what it brings back.

The browser keeps one secret in a cookie. The state, the nonce and the PKCE verifier are derived from it, so no other
browser can use a code that was made for this one, and the database, which has only a hash of the state, can't either.
"""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import timedelta

from clients.oidc.provider import Code, IdentityProvider
from db import identities
from db.session import Sessions
from db.transaction import request_transaction
from domain.errors import TokenRefused
from domain.issuers import own_path
from services import sign_ins
from services.identities import user_of_sign_in, user_scopes
from services.sign_ins import NewSignIn

LIFETIME = timedelta(minutes=10)
"""How long a person may take at the provider."""

_AGAIN = "Sign in again; keep to one tab, and let the browser accept cookies."


@dataclass(frozen=True)
class SignInStart:
    """Where a browser goes to sign in, and what its cookie holds until it comes back."""

    url: str
    secret: str


@dataclass(frozen=True)
class Answer:
    """What a browser brings back from a provider. None: it does not."""

    state: str | None
    code: str | None
    issuer: str | None
    """Who the provider says it is (RFC 9207)."""
    error: str | None


async def start(
    sessions: Sessions, provider: IdentityProvider, return_to: str | None, redirect_uri: str
) -> SignInStart:
    """Begin a sign-in. `return_to`: the path of ours to which the browser goes afterwards.

    Raises:
        IssuerUnavailable: the provider does not answer, and its documents are not known.
    """
    secret = secrets.token_urlsafe(32)
    state = _derived(secret, "state")
    url = await provider.sign_in_url(
        state=state,
        nonce=_derived(secret, "nonce"),
        challenge=_encoded(hashlib.sha256(_derived(secret, "verifier").encode()).digest()),
        redirect_uri=redirect_uri,
    )
    async with request_transaction(sessions) as tx:
        await identities.add_attempt(tx, _hash(state), provider.issuer.name, own_path(return_to), LIFETIME)
    return SignInStart(url, secret)


async def finish(
    sessions: Sessions, provider: IdentityProvider, secret: str | None, answer: Answer, redirect_uri: str
) -> tuple[NewSignIn, str]:
    """Sign in who comes back from a provider. Returns the sign-in, and the path to which the browser goes.

    `secret`: what its cookie holds.

    Raises:
        TokenRefused: this browser has begun no such sign-in, or the provider does not confirm it.
        Refused: the person may not sign in here.
        IssuerUnavailable: the provider does not answer.
    """
    label = provider.issuer.label
    state = answer.state or ""
    if not secret or not hmac.compare_digest(_derived(secret, "state").encode(), state.encode()):
        raise TokenRefused(
            f"This browser has not begun the sign-in that {label} answers, or has begun another since. {_AGAIN}"
        )
    async with request_transaction(sessions) as tx:
        return_to = await identities.use_attempt(tx, _hash(state), provider.issuer.name)
    if return_to is None:
        raise TokenRefused(f"This sign-in was completed before, or has taken too long. {_AGAIN}")
    if answer.issuer != provider.issuer.issuer and (answer.issuer is not None or await provider.names_itself()):
        raise TokenRefused(f"The answer is not from {label}. {_AGAIN}")
    if answer.error is not None or not answer.code:
        raise TokenRefused(f"{label} did not sign you in. Sign in again, and agree there; or ask the operator.")
    code = Code(answer.code, _derived(secret, "verifier"), _derived(secret, "nonce"), redirect_uri)
    claims = await provider.verify_code(code)
    async with request_transaction(sessions) as tx:
        user_id = await user_of_sign_in(tx, claims)
        return await sign_ins.create(tx, user_id, provider.issuer.issuer, user_scopes(claims)), own_path(return_to)


def _derived(secret: str, purpose: str) -> str:
    return _encoded(hmac.digest(secret.encode(), purpose.encode(), "sha256"))


def _encoded(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _hash(state: str) -> bytes:
    return hashlib.sha256(state.encode()).digest()
