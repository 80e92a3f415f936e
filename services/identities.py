"""Who a token of an identity provider is here: a user that exists, or a new one."""

import secrets

from db import identities
from db.identities import Profile
from db.transaction import Transaction
from db.users import require_user
from domain.audit import Action
from domain.errors import Conflict, InvalidInput, Refused
from domain.identity import FOUNDER_SCOPES, OPERATOR_SCOPES, Scope
from domain.issuers import VerifiedClaims, is_safe_url, is_subject
from services.audit import record


async def user_of_token(tx: Transaction, claims: VerifiedClaims) -> str:
    """The id of the user who sends a token. Makes the user if the subject is new and its issuer may bring new users.

    Raises:
        Refused: the issuer brings no new users, or none from this email address.
    """
    user_id = await identities.find_user_of(tx, claims.issuer.issuer, claims.subject)
    return await _make_user(tx, claims) if user_id is None else user_id


async def user_of_sign_in(tx: Transaction, claims: VerifiedClaims) -> str:
    """The id of the user who signs in with a browser, as `user_of_token`. Stores their name and address.

    Raises:
        Refused: as there; or the address of a user is no longer in one of the issuer's domains.
    """
    claims.check_domain()
    user_id = await identities.find_user_of(tx, claims.issuer.issuer, claims.subject)
    if user_id is None:
        return await _make_user(tx, claims)
    await identities.set_profile(tx, user_id, _profile(claims))
    return user_id


def user_scopes(claims: VerifiedClaims) -> frozenset[Scope]:
    """What the person may do who has signed in."""
    return OPERATOR_SCOPES if claims.is_operator else FOUNDER_SCOPES


def token_scopes(claims: VerifiedClaims) -> frozenset[Scope]:
    """What the sender of a token may do: what its user may, or less if the token is limited to less."""
    limit = claims.limited_to()
    scopes = user_scopes(claims)
    return scopes if limit is None else frozenset(scope for scope in scopes if scope in limit)


async def link_user(tx: Transaction, user_id: str, issuer: str, subject: str) -> None:
    """Let a subject of an issuer be a user who exists.

    Raises:
        InvalidInput: the issuer or the subject can't be one.
        NotFound: there is no such user.
        Conflict: the subject is another user.
    """
    if not is_safe_url(issuer):
        raise InvalidInput(
            f"{issuer} is not an issuer. Write the `iss` of its tokens, such as https://id.example.com; or its name, "
            "with OIDC_ISSUERS set."
        )
    if not is_subject(subject):
        raise InvalidInput("The subject can't be a `sub`. Copy it from the identity provider, or from a token.")
    await require_user(tx, user_id)
    linked = await identities.link_user(tx, issuer, subject, user_id)
    if linked != user_id:
        raise Conflict(f"{subject} of {issuer} is the user {linked} already. Use that one.")
    await record(tx, Action.IDENTITY_LINK, user_id=user_id, issuer=issuer, subject=subject)


async def _make_user(tx: Transaction, claims: VerifiedClaims) -> str:
    claims.check_domain()
    if not claims.issuer.new_users:
        raise Refused(
            f"{claims.issuer.label} knows you, but you have no account here, and it may not bring new users. Ask the "
            f"operator to link an account to the subject {claims.subject} of {claims.issuer.issuer}."
        )
    user_id = f"u-{secrets.token_hex(8)}"
    return await identities.add_user_of(tx, claims.issuer.issuer, claims.subject, user_id, _profile(claims))


def _profile(claims: VerifiedClaims) -> Profile:
    return Profile(claims.name, claims.email)
