"""The texts with which every request of a build begins, stored before they are first sent."""

import uuid

from sqlalchemy.dialects.postgresql import insert

from db.models import Prompt
from db.transaction import Transaction


async def has_prompt(tx: Transaction, build_id: uuid.UUID) -> bool:
    """Whether the build's first prompt is stored."""
    return await tx.session.get(Prompt, (build_id, 0)) is not None


async def store_prompt(tx: Transaction, build_id: uuid.UUID, system: str, tools: str) -> None:
    """Store the texts of the build's first `system` and `tools`. A prompt that is stored stays as it is."""
    await tx.session.execute(
        insert(Prompt).values(build_id=build_id, prefix=0, system=system, tools=tools).on_conflict_do_nothing()
    )
