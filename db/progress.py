"""Read how far a build has come, without its feed."""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select

from db.models import Build, Event, GateRun, ToolCall
from db.steering import count_unread
from db.transaction import Transaction
from db.turns import last_turn
from domain.events import read_event
from domain.progress import MILESTONE_TYPES, Milestones, TimedEvent, read_milestones


@dataclass(frozen=True)
class BuildProgress:
    """The counts of a build, its phases and sleeps, and its runs of the evidence gate in order."""

    turn: int
    calls: int
    failed_calls: int
    unread: int
    milestones: Milestones
    gates: Sequence[GateRun]


async def read_progress(tx: Transaction, build_id: uuid.UUID) -> BuildProgress:
    """Return how far the build has come."""
    failed = ToolCall.is_error.is_(True) & ~ToolCall.lost
    counts = select(func.count(), func.count().filter(failed)).where(ToolCall.build_id == build_id)
    calls, failed_calls = (await tx.session.execute(counts)).one()
    rows = await tx.session.scalars(
        select(Event).where(Event.build_id == build_id, Event.type.in_(MILESTONE_TYPES)).order_by(Event.id)
    )
    events = ((read_event(row.type, row.data), row) for row in rows)
    timed = [TimedEvent(event, row.turn, row.created_at) for event, row in events if event is not None]
    gates = await tx.session.scalars(select(GateRun).where(GateRun.build_id == build_id).order_by(GateRun.number))
    return BuildProgress(
        turn=await last_turn(tx, build_id),
        calls=int(calls),
        failed_calls=int(failed_calls),
        unread=await count_unread(tx, build_id),
        milestones=read_milestones(timed),
        gates=gates.all(),
    )


async def places_in_queue(tx: Transaction, user_ids: Collection[str]) -> dict[uuid.UUID, int]:
    """The place of each build of these users that waits for one of its user's slots, among those that do, from 1.

    The transaction has to see all of their builds.
    """
    place = func.row_number().over(partition_by=Build.user_id, order_by=(Build.created_at, Build.id))
    waiting = select(Build.id, place).where(
        Build.user_id.in_(user_ids), Build.closed_at.is_(None), Build.admitted_at.is_(None)
    )
    return {build_id: int(number) for build_id, number in await tx.session.execute(waiting)}
