"""API keys: who they act for, what they may do, and how long they live. Only hashes of secrets are stored."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, func, or_, select, text, update

from db import access
from db.models import ApiKey
from db.transaction import Transaction

_MADE_WITH_KEY = "key:"
"""How `created_by` begins if a key made the key; its id follows."""

_REVOKE = text(
    f"""
    with recursive ended(id) as (
        select id from api_keys where id = :id
        union
        select api_keys.id from api_keys join ended
            on api_keys.created_by = '{_MADE_WITH_KEY}' || ended.id or api_keys.replaced_by = ended.id
    )
    update api_keys set revoked_at = now() from ended where api_keys.id = ended.id and revoked_at is null
    returning api_keys.id
    """
)


def made_with_key(key_id: str) -> str:
    """What stands in `created_by` of a key that another key made."""
    return f"{_MADE_WITH_KEY}{key_id}"


async def add_key(tx: Transaction, key: ApiKey) -> ApiKey:
    """Insert a key."""
    tx.session.add(key)
    await tx.session.flush()
    await tx.session.refresh(key)
    return key


async def find_key(tx: Transaction, key_id: str) -> ApiKey | None:
    """Any user's key with this id, whether it still works or not."""
    return (await tx.session.scalars(select(ApiKey).where(ApiKey.id == key_id))).one_or_none()


async def key_works(tx: Transaction, key_id: str) -> bool:
    """Whether a key works still."""
    return await tx.session.scalar(select(ApiKey.id).where(ApiKey.id == key_id, _works())) is not None


async def lock_key(tx: Transaction, user_id: str, key_id: str) -> ApiKey | None:
    """A user's key, locked until the transaction ends."""
    query = select(ApiKey).where(ApiKey.id == key_id, access.owned(ApiKey, user_id)).with_for_update()
    return (await tx.session.scalars(query.execution_options(populate_existing=True))).one_or_none()


async def list_keys(tx: Transaction, user_id: str) -> Sequence[ApiKey]:
    """A user's keys that work, the newest first."""
    query = select(ApiKey).where(access.owned(ApiKey, user_id), _works()).order_by(ApiKey.created_at.desc(), ApiKey.id)
    return (await tx.session.scalars(query)).all()


async def lock_keys_of(tx: Transaction, user_id: str) -> int:
    """Let one transaction at a time add keys of a user, until it ends. Returns how many work."""
    lock = select(func.pg_advisory_xact_lock(func.hashtextextended(f"api keys of {user_id}", 0)))
    await tx.session.execute(lock)
    query = select(func.count()).select_from(ApiKey).where(ApiKey.user_id == user_id, _works())
    return int(await tx.session.scalar(query) or 0)


async def replace_key(tx: Transaction, key_id: str, successor_id: str, expires_at: datetime) -> None:
    """Let a key end at a time, and name the one that takes its place."""
    await tx.session.execute(
        update(ApiKey).where(ApiKey.id == key_id).values(replaced_by=successor_id, expires_at=expires_at)
    )


async def revoke_key(tx: Transaction, key_id: str) -> list[str]:
    """End a key at once, the keys that it made, and the keys whose place one of these has taken.

    Returns:
        The ids of the keys that worked until now.
    """
    rows = await tx.execute(_REVOKE, {"id": key_id})
    return sorted(key_id for (key_id,) in rows)


async def note_use(tx: Transaction, key_id: str, at_most_every: timedelta) -> None:
    """Note that a key is used now, unless that was noted a short while ago."""
    await tx.session.execute(
        update(ApiKey)
        .where(
            ApiKey.id == key_id, or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < func.now() - at_most_every)
        )
        .values(last_used_at=func.now())
    )


def _works() -> ColumnElement[bool]:
    return and_(ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now()))
