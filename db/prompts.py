"""Prefixes: what every request of a part of a conversation begins with, stored before it is first sent."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import UUID, Boolean, Integer, Text, bindparam, select, text
from sqlalchemy.dialects.postgresql import insert

from db.models import Prompt
from db.transaction import Transaction
from domain.errors import StaleClaim
from domain.sent_tools import digest_of_today


async def find_prompt(tx: Transaction, build_id: uuid.UUID) -> Prompt | None:
    """Return the build's first prompt, if it is stored."""
    return await tx.session.get(Prompt, (build_id, 0))


@dataclass(frozen=True)
class FirstSettings:
    """How the model of a new build answers."""

    settings: str
    betas: str
    fallbacks: Sequence[str] = ()
    system_notices: bool = False
    """Whether Cofounder's notes are messages of the role `system`."""


async def store_prompt(
    tx: Transaction, build_id: uuid.UUID, system: str, tools: str, settings: FirstSettings | None
) -> None:
    """Store what the build's requests begin with. A prompt that is stored stays as it is.

    `system` asks for a plan, as `render_system_prompt` does.
    """
    values: dict[str, Any] = {"system": system, "tools": tools, "wants_plan": True}
    if settings is not None:
        values |= {"settings": settings.settings, "betas": settings.betas, "fallbacks": list(settings.fallbacks)}
        values["system_notices"] = settings.system_notices
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


_CHANGED_TOOLS = text(
    "select tools from prompts where build_id = :build and prefix = :prefix and md5(tools) <> :tools"
).bindparams(bindparam("build", type_=UUID(as_uuid=True)))


async def changed_tools(tx: Transaction, build_id: uuid.UUID, prefix: int) -> str | None:
    """The tools of a prefix, if they are not those of this version."""
    values = {"build": build_id, "prefix": prefix, "tools": digest_of_today()}
    row = (await tx.execute(_CHANGED_TOOLS, values)).first()
    return None if row is None else str(row[0])


async def fallbacks_of(tx: Transaction, build_id: uuid.UUID) -> tuple[str, ...]:
    """The fallback models of the build's newest prefix."""
    newest = select(Prompt.fallbacks).where(Prompt.build_id == build_id).order_by(Prompt.prefix.desc()).limit(1)
    return tuple(await tx.session.scalar(newest) or ())


_OPEN = text(
    """
    insert into prompts
        (build_id, prefix, system, tools, settings, betas, fallbacks, system_notices, wants_plan, covers, opening)
    select build_id, :prefix, system, tools, settings, coalesce(:betas, betas), fallbacks,
        coalesce(:system_notices, system_notices), wants_plan, :covers, :opening
    from prompts where build_id = :build and prefix = :base
    on conflict do nothing returning prefix
    """
).bindparams(
    bindparam("build", type_=UUID(as_uuid=True)),
    *(bindparam(name, type_=Text()) for name in ("betas", "opening")),
    *(bindparam(name, type_=Integer()) for name in ("prefix", "covers", "base")),
    bindparam("system_notices", type_=Boolean()),
)


async def open_prefix(
    tx: Transaction,
    build_id: uuid.UUID,
    base: int,
    prefix: int,
    *,
    covers: int,
    opening: str,
    betas: str | None = None,
    system_notices: bool | None = None,
) -> bool:
    """Store a new prefix, which answers as an earlier one does. One that is stored stays as it is.

    Args:
        base: the earlier prefix.
        prefix: the number of the new one.
        covers: the turn up to whose user message `opening` stands for the conversation.
        opening: the first message, as the JSON text that is sent.
        betas: the betas that it needs, if they are not those of the earlier one.
        system_notices: where its notices stand, if not as in the earlier one.

    Returns:
        False if the number is taken.
    """
    values = {"build": build_id, "prefix": prefix, "base": base, "covers": covers, "opening": opening, "betas": betas}
    values["system_notices"] = system_notices
    return (await tx.execute(_OPEN, values)).first() is not None


_USE = text(
    """
    update turns set prefix = :prefix where build_id = :build and number = :turn and claim = :claim and outcome is null
    returning number
    """
).bindparams(bindparam("build", type_=UUID(as_uuid=True)), bindparam("claim", type_=UUID(as_uuid=True)))


async def use_prefix(tx: Transaction, build_id: uuid.UUID, turn: int, claim: uuid.UUID, prefix: int) -> None:
    """Let the next attempt at an unanswered turn begin with another prefix.

    Raises:
        StaleClaim: another attempt has taken the turn.
    """
    values = {"build": build_id, "turn": turn, "claim": claim, "prefix": prefix}
    if (await tx.execute(_USE, values)).first() is None:
        raise StaleClaim(f"another attempt has taken turn {turn}")


async def fixed_bytes(tx: Transaction, build_id: uuid.UUID, prefix: int) -> int:
    """The length of system prompt and tools of a prefix."""
    stored = await load_prefix(tx, build_id, prefix)
    return len(stored.system.encode()) + len(stored.tools.encode())
