"""API keys."""

from sqlalchemy import func, or_, select

from db.models import ApiKey
from db.transaction import Transaction


async def find_valid_key(tx: Transaction, key_id: str) -> ApiKey | None:
    """Return the key if it exists, has not expired and is not revoked."""
    valid = select(ApiKey).where(
        ApiKey.id == key_id,
        ApiKey.revoked_at.is_(None),
        or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now()),
    )
    return (await tx.session.scalars(valid)).one_or_none()
