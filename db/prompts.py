"""Prefixes: what every request of a part of a conversation begins with, stored before it is first sent."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import UUID, bindparam, select, text
from sqlalchemy.dialects.postgresql import insert

from db.models import Prompt
from db.transaction import Transaction


async def find_prompt(tx: Transaction, build_id: uuid.UUID) -> Prompt | None:
    """Return the build's first prompt, if it is stored."""
    return await tx.session.get(Prompt, (build_id, 0))


@dataclass(frozen=True)
class FirstSettings:
    """How the model of a new build answers."""

    settings: str
    betas: str
    fallbacks: Sequence[str] = ()


async def store_prompt(
    tx: Transaction, build_id: uuid.UUID, system: str, tools: str, settings: FirstSettings | None
) -> None:
    """Store what the build's requests begin with. A prompt that is stored stays as it is.

    `system` asks for a plan, as `render_system_prompt` does.
    """
    values: dict[str, Any] = {"system": system, "tools": tools, "wants_plan": True}
    if settings is not None:
        values |= {"settings": settings.settings, "betas": settings.betas, "fallbacks": list(settings.fallbacks)}
    await tx.session.execute(insert(Prompt).values(build_id=build_id, prefix=0, **values).on_conflict_do_nothing())


@dataclass(frozen=True)
class StoredPrefix:
    """What the requests of a prefix begin with, as stored text."""

    system: str
    tools: str
    settings: str
    betas: str
    opening: str | None
    """The first message; None if that is turn 1's."""
    covers: int
    """The turn up to whose user message `opening` stands for the conversation; 0 for none."""


_PREFIX = text(
    """
    select system, tools, settings, betas, opening, covers from prompts where build_id = :build and prefix = :prefix
    """
).bindparams(bindparam("build", type_=UUID(as_uuid=True)))


async def load_prefix(tx: Transaction, build_id: uuid.UUID, prefix: int) -> StoredPrefix:
    """Read what the requests of a prefix begin with."""
    return StoredPrefix(*(await tx.execute(_PREFIX, {"build": build_id, "prefix": prefix})).one())


async def fallbacks_of(tx: Transaction, build_id: uuid.UUID) -> tuple[str, ...]:
    """The fallback models of the build's newest prefix."""
    newest = select(Prompt.fallbacks).where(Prompt.build_id == build_id).order_by(Prompt.prefix.desc()).limit(1)
    return tuple(await tx.session.scalar(newest) or ())
