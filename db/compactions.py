"""Compactions: attempts to sum up a conversation, each of which may open a prefix. Claimed like turns."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import UUID, bindparam, func, select, text

from db import money
from db.models import Compaction, Event, FounderMessage, Prompt, Turn
from db.transaction import Transaction
from domain.compaction import TAIL_TURNS, TURNS_BETWEEN
from domain.errors import CallInFlight, StaleClaim
from domain.events import PhaseCompletedEvent

OPENED = "compaction"
"""The outcome of a compaction that has opened its prefix; any other names why there is no summary."""


@dataclass(frozen=True)
class ClaimedCompaction:
    """A compaction after an attempt has tried to take it."""

    outcome: str | None
    """The stored outcome, if it was answered before; it was not taken then."""
    lost: uuid.UUID | None
    """The claim of the earlier attempt that it was taken from, if there was one."""
    base: int
    """The prefix that is summed up."""
    prefix: int
    """The one that it opens."""
    covers: int
    """The turn up to whose user message it sums up."""


async def claim_compaction(
    tx: Transaction, build_id: uuid.UUID, turn: int, run_id: str, claim: uuid.UUID, *, waits: bool, lost_after: float
) -> ClaimedCompaction | None:
    """Take the compaction after this turn for this attempt, unless it has been answered. `waits` and `lost_after` are
    those of `turns.claim_turn`.

    Returns:
        None if there is nothing to sum up: the newest prefix begins with the turns that a summary leaves as they are.

    Raises:
        CallInFlight: an earlier attempt, whose run is gone, may still be making the call.
        StaleClaim: another attempt makes the row at this moment.
    """
    covers = turn - TAIL_TURNS
    if covers <= 0:
        return None
    # Locked, so that attempts at the same time take turns: there is no row of the compaction to lock yet.
    last = await tx.session.get_one(Turn, (build_id, covers), with_for_update=True)
    base = last.prefix
    row = await tx.session.scalar(
        select(Compaction)
        .where(Compaction.build_id == build_id, Compaction.covers == covers)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if row is None:
        newest = await tx.session.scalar(select(func.max(Prompt.prefix)).where(Prompt.build_id == build_id))
        if newest != base:
            return None
        prefix = await next_prefix(tx, build_id)
        values = {"build": build_id, "prefix": prefix, "covers": covers, "run": run_id, "claim": claim}
        if (await tx.execute(_CLAIM, values)).first() is None:
            raise StaleClaim(f"another attempt has taken the compaction after turn {turn}")
        return ClaimedCompaction(None, None, base, prefix, covers)
    if row.outcome is not None:
        return ClaimedCompaction(row.outcome, None, base, row.prefix, covers)
    other_run = waits and row.run_id != run_id
    if await money.is_in_flight(tx, row.claim, other_run=other_run, seconds=lost_after):
        raise CallInFlight(f"an attempt of another run is making the compaction after turn {turn}")
    lost, row.claim, row.run_id = row.claim, claim, run_id
    return ClaimedCompaction(None, lost, base, row.prefix, covers)


_CLAIM = text(
    """
    insert into compactions (build_id, prefix, covers, run_id, claim) values (:build, :prefix, :covers, :run, :claim)
    on conflict do nothing returning prefix
    """
).bindparams(bindparam("build", type_=UUID(as_uuid=True)), bindparam("claim", type_=UUID(as_uuid=True)))

_ANSWER = text(
    """
    update compactions set outcome = :outcome, tokens_before = :tokens, answered_at = now()
    where build_id = :build and prefix = :prefix and claim = :claim and outcome is null
    returning prefix
    """
).bindparams(bindparam("build", type_=UUID(as_uuid=True)), bindparam("claim", type_=UUID(as_uuid=True)))


async def store_outcome(
    tx: Transaction, build_id: uuid.UUID, prefix: int, claim: uuid.UUID, outcome: str, tokens_before: int
) -> None:
    """Store how a compaction ended.

    Raises:
        StaleClaim: another attempt has taken it.
    """
    values = {"build": build_id, "prefix": prefix, "claim": claim, "outcome": outcome, "tokens": tokens_before}
    if (await tx.execute(_ANSWER, values)).first() is None:
        raise StaleClaim(f"another attempt has taken the compaction that opens prefix {prefix}")


async def next_prefix(tx: Transaction, build_id: uuid.UUID) -> int:
    """A number for a new prefix. Numbers of compactions without a summary are not used again."""
    row = await tx.execute(_NEXT, {"build": build_id})
    return int(row.scalar())


_NEXT = text(
    """
    select 1 + greatest(
        (select coalesce(max(prefix), 0) from prompts where build_id = :build),
        (select coalesce(max(prefix), 0) from compactions where build_id = :build)
    )
    """
).bindparams(bindparam("build", type_=UUID(as_uuid=True)))

_TURNS_SINCE = text(
    f"""
    select least(
        (select count(*) from turns
            where build_id = :build and number > :turn - {TURNS_BETWEEN} and number <= :turn and prefix = :prefix),
        :turn - (select max(covers) + {TAIL_TURNS} from compactions where build_id = :build)
    )
    """
).bindparams(bindparam("build", type_=UUID(as_uuid=True)))


async def turns_since(tx: Transaction, build_id: uuid.UUID, turn: int, prefix: int) -> int:
    """Turns up to this one since its prefix was opened, or since the last attempt to sum up the conversation.

    Counts to `TURNS_BETWEEN`.
    """
    return int((await tx.execute(_TURNS_SINCE, {"build": build_id, "turn": turn, "prefix": prefix})).scalar())


async def read_messages(tx: Transaction, build_id: uuid.UUID) -> Sequence[str]:
    """The founder's messages that the agent has read, in order."""
    return (
        await tx.session.scalars(
            select(FounderMessage.text)
            .where(FounderMessage.build_id == build_id, FounderMessage.turn.is_not(None))
            .order_by(FounderMessage.number)
        )
    ).all()


async def commit_titles(tx: Transaction, build_id: uuid.UUID) -> Sequence[str]:
    """The titles of the commits that have ended a phase, in order."""
    titles = await tx.session.scalars(
        select(Event.data["title"].astext)
        .where(Event.build_id == build_id, Event.type == PhaseCompletedEvent.type)
        .order_by(Event.id)
    )
    return [title or "" for title in titles]
