"""Users as identity providers know them, and browsers that were sent to a provider and have not come back."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from db.models import SignInAttempt, User, UserIdentity
from db.transaction import Transaction

_LOCK = text("select pg_advisory_xact_lock(hashtextextended(:issuer || ' ' || :subject, 14))")


@dataclass(frozen=True)
class Profile:
    """What an issuer says of a person; None: nothing."""

    name: str | None
    email: str | None


async def find_user_of(tx: Transaction, issuer: str, subject: str) -> str | None:
    """The id of the user whom an issuer calls `subject`, if there is one."""
    query = select(UserIdentity.user_id).where(UserIdentity.issuer == issuer, UserIdentity.subject == subject)
    return await tx.session.scalar(query)


async def add_user_of(tx: Transaction, issuer: str, subject: str, user_id: str, profile: Profile) -> str:
    """Make a user whom an issuer calls `subject`. Returns the user's id, which is another's if one was just made."""
    await tx.session.execute(_LOCK, {"issuer": issuer, "subject": subject})
    existing = await find_user_of(tx, issuer, subject)
    if existing is not None:
        return existing
    await tx.session.execute(insert(User).values(id=user_id, name=profile.name, email=profile.email))
    await tx.session.execute(insert(UserIdentity).values(issuer=issuer, subject=subject, user_id=user_id))
    return user_id


async def link_user(tx: Transaction, issuer: str, subject: str, user_id: str) -> str:
    """Let an issuer's `subject` be this user. Returns the user that it is: another, if it was linked before."""
    row = {"issuer": issuer, "subject": subject, "user_id": user_id}
    await tx.session.execute(insert(UserIdentity).values(row).on_conflict_do_nothing())
    linked = await find_user_of(tx, issuer, subject)
    assert linked is not None, "inserted above"
    return linked


async def set_profile(tx: Transaction, user_id: str, profile: Profile) -> None:
    """Store what an issuer says of a user now. What it does not say stays."""
    known = {"name": profile.name, "email": profile.email}
    changes = {column: value for column, value in known.items() if value is not None}
    if changes:
        await tx.session.execute(update(User).where(User.id == user_id).values(changes))


async def add_attempt(tx: Transaction, state_hash: bytes, issuer: str, return_to: str, lifetime: timedelta) -> None:
    """Note that a browser goes to an issuer to sign in. Deletes attempts that have expired."""
    await tx.session.execute(delete(SignInAttempt).where(SignInAttempt.expires_at < func.now()))
    row = {"state_hash": state_hash, "issuer": issuer, "return_to": return_to, "expires_at": func.now() + lifetime}
    await tx.session.execute(insert(SignInAttempt).values(row))


async def use_attempt(tx: Transaction, state_hash: bytes, issuer: str) -> str | None:
    """Use up an attempt. Returns where its browser goes afterwards; None if there is none, or it has expired."""
    return await tx.session.scalar(
        delete(SignInAttempt)
        .where(
            SignInAttempt.state_hash == state_hash,
            SignInAttempt.issuer == issuer,
            SignInAttempt.expires_at > func.now(),
        )
        .returning(SignInAttempt.return_to)
    )
