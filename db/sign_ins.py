"""Browsers that are signed in, and the codes of links with which they sign in. Only hashes are stored."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, or_, select, update

from db import access
from db.models import ApiKey, SignIn, SignInCode
from db.transaction import Transaction


@dataclass(frozen=True)
class CheckedSignIn:
    """A sign-in with the database's time. `key_works`: whether the key that it was made with still works, if any."""

    row: SignIn
    now: datetime
    key_works: bool


_KEY_WORKS = SignIn.api_key_id.is_(None) | (
    ApiKey.revoked_at.is_(None) & or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now())
)

_CHECKED = select(SignIn, func.now(), _KEY_WORKS).outerjoin(ApiKey, ApiKey.id == SignIn.api_key_id)


async def add_code(tx: Transaction, code: SignInCode, forget_after: timedelta) -> None:
    """Insert a code. Deletes codes of the user that expired that long ago."""
    await tx.session.execute(
        delete(SignInCode).where(SignInCode.user_id == code.user_id, SignInCode.expires_at < func.now() - forget_after)
    )
    tx.session.add(code)
    await tx.session.flush()


async def use_code(tx: Transaction, code_hash: bytes) -> SignInCode | None:
    """Use up a code. Returns None if there is none that works; of several who try at once, one gets it."""
    rows = await tx.session.scalars(
        update(SignInCode)
        .where(SignInCode.code_hash == code_hash, SignInCode.used_at.is_(None), SignInCode.expires_at > func.now())
        .values(used_at=func.now())
        .returning(SignInCode)
    )
    return rows.one_or_none()


async def find_code(tx: Transaction, code_hash: bytes) -> SignInCode | None:
    """A code, whether it still works or not."""
    return (await tx.session.scalars(select(SignInCode).where(SignInCode.code_hash == code_hash))).one_or_none()


async def add_sign_in(tx: Transaction, sign_in: SignIn, idle: timedelta, forget_after: timedelta) -> SignIn:
    """Insert a sign-in. Deletes sign-ins of the user that ended that long ago, by age, being idle or being ended."""
    ended_at = func.least(SignIn.expires_at, SignIn.last_used_at + idle, SignIn.revoked_at)
    await tx.session.execute(
        delete(SignIn).where(SignIn.user_id == sign_in.user_id, ended_at < func.now() - forget_after)
    )
    tx.session.add(sign_in)
    await tx.session.flush()
    await tx.session.refresh(sign_in)
    return sign_in


async def find_sign_in(tx: Transaction, token_hash: bytes) -> CheckedSignIn | None:
    """The sign-in of a cookie, whether it still works or not."""
    row = (await tx.session.execute(_CHECKED.where(SignIn.token_hash == token_hash))).one_or_none()
    return None if row is None else CheckedSignIn(row[0], row[1], bool(row[2]))


async def find_sign_in_by_id(tx: Transaction, sign_in_id: uuid.UUID) -> CheckedSignIn | None:
    """The sign-in with this id, whether it still works or not."""
    row = (await tx.session.execute(_CHECKED.where(SignIn.id == sign_in_id))).one_or_none()
    return None if row is None else CheckedSignIn(row[0], row[1], bool(row[2]))


async def list_sign_ins(tx: Transaction, user_id: str, idle: timedelta) -> Sequence[SignIn]:
    """A user's sign-ins that work, the one used last first. They end after having been idle that long."""
    query = (
        select(SignIn)
        .where(
            access.owned(SignIn, user_id),
            SignIn.revoked_at.is_(None),
            SignIn.expires_at > func.now(),
            SignIn.last_used_at > func.now() - idle,
        )
        .order_by(SignIn.last_used_at.desc(), SignIn.id)
    )
    return (await tx.session.scalars(query)).all()


async def revoke_sign_in(tx: Transaction, user_id: str, sign_in_id: uuid.UUID) -> bool:
    """End a user's sign-in. Returns False if there is none of this id that has not been ended."""
    ended = await tx.session.scalar(
        update(SignIn)
        .where(SignIn.id == sign_in_id, access.owned(SignIn, user_id), SignIn.revoked_at.is_(None))
        .values(revoked_at=func.now())
        .returning(SignIn.id)
    )
    return ended is not None


async def delete_by_token(tx: Transaction, token_hash: bytes) -> None:
    """Delete the sign-in of a cookie, if there is one; visits of previews that it made go with it."""
    await tx.session.execute(delete(SignIn).where(SignIn.token_hash == token_hash))


async def note_use(tx: Transaction, sign_in_id: uuid.UUID, at_most_every: timedelta) -> None:
    """Note that a sign-in is used now, unless that was noted a short while ago."""
    await tx.session.execute(
        update(SignIn)
        .where(SignIn.id == sign_in_id, SignIn.last_used_at < func.now() - at_most_every)
        .values(last_used_at=func.now())
    )
