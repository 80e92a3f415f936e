"""Sign-ins of browsers: made with a link that works once, checked at each request, ended.

A sign-in is an opaque random token in a cookie; the database has its hash. `create` is for every way to sign in.
"""

import hashlib
import secrets
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from db import api_keys, sign_ins
from db.models import SignIn, SignInCode
from db.transaction import Transaction
from db.users import require_user
from domain.api_keys import check_scopes
from domain.audit import Action
from domain.errors import CredentialRefused, NotFound, SignInLinkRefused
from domain.identity import FOUNDER_SCOPES, How, Identity, Scope
from services.audit import record

CODE_LIFETIME = timedelta(minutes=10)
"""A sign-in link works this long."""

LIFETIME = timedelta(days=30)
"""A sign-in ends after this long, however much it is used."""

IDLE = timedelta(days=7)
"""A sign-in ends after not having been used for this long."""

NOTE_USE_EVERY = timedelta(minutes=1)
"""`last_used_at` is written at most this often, so that a request costs no write."""

LINK = "link"
"""`method` of a sign-in with a link."""

_FORGET_AFTER = timedelta(days=1)
"""Until then a link or a sign-in that does not work any more says why."""

_ANOTHER_LINK = "Make another on the machine where you use Cofounder: `cofounder open`."


@dataclass(frozen=True)
class NewCode:
    """The code of a new sign-in link. Its user gets it once."""

    code: str
    expires_at: datetime


@dataclass(frozen=True)
class NewSignIn:
    """A browser that has just signed in. `token` is what its cookie holds, and is stored nowhere else."""

    sign_in: SignIn
    token: str


async def make_code(tx: Transaction, maker: Identity, scopes: Iterable[Scope] | None = None) -> NewCode:
    """Make the code of a link with which the maker's user can sign in once.

    Args:
        scopes: what the sign-in may do; by default all that a founder may, as far as the maker may.

    Raises:
        NotFound: an operator names a user who does not exist.
        InvalidInput: the maker does not have a scope.
    """
    await require_user(tx, maker.user_id)
    wanted = check_scopes(maker.scopes & FOUNDER_SCOPES if scopes is None else scopes, maker.scopes)
    code = secrets.token_urlsafe(32)
    expires_at = datetime.now(UTC) + CODE_LIFETIME
    row = SignInCode(
        code_hash=_hash(code),
        user_id=maker.user_id,
        created_by=maker.actor,
        expires_at=expires_at,
        scopes=sorted(wanted),
        api_key_id=maker.credential_id if maker.how is How.API_KEY else None,
    )
    await sign_ins.add_code(tx, row, _FORGET_AFTER)
    await record(tx, Action.SIGN_IN_LINK)
    return NewCode(code, expires_at)


async def sign_in_with_code(tx: Transaction, code: str) -> NewSignIn:
    """Use up the code of a link, and sign its user in.

    Raises:
        SignInLinkRefused: the code does not work; says what to do.
    """
    used = await sign_ins.use_code(tx, _hash(code))
    if used is None:
        raise _why_refused(await sign_ins.find_code(tx, _hash(code)))
    key = None if used.api_key_id is None else await api_keys.find_key(tx, used.api_key_id)
    if key is not None and (key.revoked_at is not None or (key.expires_at or used.expires_at) <= datetime.now(UTC)):
        raise SignInLinkRefused(
            f"The API key that made this sign-in link does not work any more, so the link does not either. "
            f"{_ANOTHER_LINK}",
            "expired",
        )
    return await create(tx, used.user_id, LINK, map(Scope, used.scopes), api_key_id=used.api_key_id)


async def create(
    tx: Transaction,
    user_id: str,
    method: str,
    scopes: Iterable[Scope] = FOUNDER_SCOPES,
    *,
    api_key_id: str | None = None,
) -> NewSignIn:
    """Sign a user in who has proved who they are. The token is always a new one.

    Args:
        method: `LINK`, or the issuer that identified the user.
        api_key_id: the key whose end also ends the sign-in.
    """
    token = secrets.token_urlsafe(32)
    row = SignIn(
        id=uuid.uuid4(),
        token_hash=_hash(token),
        user_id=user_id,
        method=method,
        scopes=sorted(scopes),
        expires_at=datetime.now(UTC) + LIFETIME,
        api_key_id=api_key_id,
    )
    return NewSignIn(await sign_ins.add_sign_in(tx, row, IDLE, _FORGET_AFTER), token)


async def identify_sign_in(tx: Transaction, token: str) -> Identity:
    """Who makes a request with the cookie that holds this token. Notes that the sign-in is used.

    Raises:
        CredentialRefused: the sign-in is not known or has ended.
    """
    found = await sign_ins.find_sign_in(tx, _hash(token))
    if found is None:
        raise CredentialRefused(f"You are signed out. Sign in again. {_ANOTHER_LINK}", "signed-out")
    row = found.row
    if row.revoked_at is not None or not found.key_works:
        raise CredentialRefused(f"This sign-in was ended. Sign in again. {_ANOTHER_LINK}", "sign-in-ended")
    if row.expires_at <= found.now or row.last_used_at <= found.now - IDLE:
        raise CredentialRefused(f"This sign-in has expired. Sign in again. {_ANOTHER_LINK}", "sign-in-expired")
    if row.last_used_at < found.now - NOTE_USE_EVERY:
        await sign_ins.note_use(tx, row.id, NOTE_USE_EVERY)
    scopes = frozenset(Scope(scope) for scope in row.scopes if scope in set(Scope))
    return Identity(row.user_id, scopes, How.SIGN_IN, row.user_id, str(row.id))


async def list_sign_ins(tx: Transaction, user_id: str) -> Sequence[SignIn]:
    """The user's sign-ins that work, the one used last first."""
    return await sign_ins.list_sign_ins(tx, user_id, IDLE)


async def end_sign_in(tx: Transaction, user_id: str, sign_in_id: uuid.UUID) -> None:
    """End a sign-in of the user: its browser is signed out at its next request.

    Raises:
        NotFound: the user has no such sign-in, or it has ended.
    """
    if not await sign_ins.revoke_sign_in(tx, user_id, sign_in_id):
        raise NotFound(f"You have no sign-in {sign_in_id}.")
    await record(tx, Action.SIGN_IN_REVOKE, sign_in_id=sign_in_id)


async def sign_out(tx: Transaction, token: str) -> None:
    """Delete the sign-in of a cookie, if there is one."""
    await sign_ins.delete_by_token(tx, _hash(token))


def _why_refused(code: SignInCode | None) -> SignInLinkRefused:
    if code is None:
        return SignInLinkRefused(
            f"This sign-in link is not known here. It may be incomplete, or very old. {_ANOTHER_LINK}", "unknown"
        )
    if code.used_at is not None:
        return SignInLinkRefused(
            "This sign-in link was used before, and works only once. If it was not you who used it, sign that browser "
            f"out: `cofounder sign-ins list`. {_ANOTHER_LINK}",
            "used",
        )
    minutes = int(CODE_LIFETIME.total_seconds()) // 60
    return SignInLinkRefused(
        f"This sign-in link has expired: it works for {minutes} minutes. {_ANOTHER_LINK}", "expired"
    )


def _hash(token: str) -> bytes:
    """SHA-256 suffices: codes and tokens are random, so no dictionary helps to guess them."""
    return hashlib.sha256(token.encode()).digest()
