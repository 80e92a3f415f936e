"""The keys with which something was written to Temporal: their ids and check values, never the keys."""

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from db.models import PayloadKey
from db.transaction import Transaction


async def used_keys(tx: Transaction) -> dict[str, str]:
    """Return the check values of the keys that histories may still need, by id."""
    rows = await tx.session.execute(
        select(PayloadKey.id, PayloadKey.check_value).where(PayloadKey.retired_at.is_(None)).order_by(PayloadKey.id)
    )
    return {key_id: value for key_id, value in rows}


async def list_keys(tx: Transaction) -> list[PayloadKey]:
    """List all keys that were ever used, the oldest first."""
    return list(await tx.session.scalars(select(PayloadKey).order_by(PayloadKey.used_since)))


async def note_key(tx: Transaction, key_id: str, check_value: str) -> None:
    """Note that a key is used from now on. One that was retired is in use again."""
    values = {"check_value": check_value, "retired_at": None}
    await tx.session.execute(
        insert(PayloadKey)
        .values(id=key_id, **values)
        .on_conflict_do_update(
            index_elements=["id"], set_=values | {"used_since": func.now()}, where=PayloadKey.retired_at.is_not(None)
        )
    )


async def retire_key(tx: Transaction, key_id: str) -> bool:
    """Note that no history needs a key any more. Returns False if none of that id is in use."""
    retired = await tx.session.execute(
        update(PayloadKey)
        .where(PayloadKey.id == key_id, PayloadKey.retired_at.is_(None))
        .values(retired_at=func.now())
        .returning(PayloadKey.id)
    )
    return retired.first() is not None
