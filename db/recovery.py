"""What the rows of a build say of its state, so that a new run of its workflow goes on over them."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, func, select

from db.models import Build, Event, FounderMessage, GateRun, Message, Question, Restore, Snapshot, ToolCall, Turn
from db.transaction import Transaction
from domain.events import ModelEvent, ResumedEvent, StatusEvent, TurnStartedEvent
from domain.status import Status

_WORKING = (Status.STARTING, Status.SCAFFOLD, Status.CODE, Status.CHECKS)


@dataclass(frozen=True)
class BuildRecord:
    """The rows of a build, counted. `turn` is its last one, and counts of calls are of the turns before that."""

    build: Build
    turn: Turn | None
    calls: int
    phases: int
    snapshots: int
    """The highest number of a snapshot."""
    gate: GateRun | None
    """The last run of the evidence gate."""
    message_received: int
    message_read: int
    restore_requested: int
    restore_done: int
    restored_at: datetime | None
    """When the founder's last restore ended."""
    asked_at: datetime | None
    """When the founder was last asked before the last turn. A question since then follows that turn."""
    working_status: Status | None
    """The last status in which the build worked."""
    has_model: bool
    """The build's model has been announced."""
    has_resumed: bool
    """The workspace was resumed since the last turn began."""
    sleeps: int
    """How often the build has fallen asleep since then."""

    @property
    def counted_since(self) -> datetime | None:
        """When the guards last began to count again: with a question to the founder, or a restore."""
        return max((moment for moment in (self.restored_at, self.asked_at) if moment is not None), default=None)


async def read_record(tx: Transaction, build_id: uuid.UUID) -> BuildRecord:
    """Read what the build's rows say.

    Raises:
        NoResultFound: there is no such build.
    """
    build = await tx.session.get_one(Build, build_id)
    turn = await tx.session.scalar(select(Turn).where(Turn.build_id == build_id).order_by(Turn.number.desc()).limit(1))
    number = 0 if turn is None else turn.number
    calls, phases = (
        await tx.session.execute(
            select(func.count(), func.count(ToolCall.commit)).where(
                ToolCall.build_id == build_id, ToolCall.turn < number
            )
        )
    ).one()
    received, read = (
        await tx.session.execute(
            select(
                func.coalesce(func.max(FounderMessage.number), 0),
                func.coalesce(func.max(FounderMessage.number).filter(FounderMessage.turn.is_not(None)), 0),
            ).where(FounderMessage.build_id == build_id)
        )
    ).one()
    requested, done, restored_at = (
        await tx.session.execute(
            select(
                func.coalesce(func.max(Restore.number), 0),
                func.coalesce(func.max(Restore.number).filter(Restore.state != "requested"), 0),
                func.max(Restore.ended_at),
            ).where(Restore.build_id == build_id)
        )
    ).one()
    questions = select(func.max(Question.asked_at)).where(Question.build_id == build_id)
    if turn is not None and turn.answered_at is not None:
        questions = questions.where(Question.asked_at < turn.answered_at)
    working_status = await tx.session.scalar(
        select(Event.data["status"].astext)
        .where(
            Event.build_id == build_id,
            Event.type == StatusEvent.type,
            Event.data["status"].astext.in_(_WORKING),
        )
        .order_by(Event.id.desc())
        .limit(1)
    )
    began = await _first_event_of_turn(tx, build_id, number)
    return BuildRecord(
        build=build,
        turn=turn,
        calls=calls,
        phases=phases,
        snapshots=await _highest_snapshot(tx, build_id),
        gate=await tx.session.scalar(
            select(GateRun).where(GateRun.build_id == build_id).order_by(GateRun.number.desc()).limit(1)
        ),
        message_received=received,
        message_read=read,
        restore_requested=requested,
        restore_done=done,
        restored_at=restored_at,
        asked_at=await tx.session.scalar(questions),
        working_status=None if working_status is None else Status(working_status),
        has_model=await _has_event(tx, build_id, ModelEvent.type),
        has_resumed=await _has_event(tx, build_id, ResumedEvent.type, after=began),
        sleeps=await _count_sleeps(tx, build_id, after=began),
    )


async def _highest_snapshot(tx: Transaction, build_id: uuid.UUID) -> int:
    number = await tx.session.scalar(select(func.max(Snapshot.number)).where(Snapshot.build_id == build_id))
    return int(number or 0)


async def _first_event_of_turn(tx: Transaction, build_id: uuid.UUID, turn: int) -> int:
    """The id of the event with which the turn began; 0 if it has none."""
    first = await tx.session.scalar(
        select(func.min(Event.id)).where(
            Event.build_id == build_id, Event.type == TurnStartedEvent.type, Event.turn == turn
        )
    )
    return int(first or 0)


async def _has_event(tx: Transaction, build_id: uuid.UUID, event_type: str, *, after: int = 0) -> bool:
    query = select(Event.id).where(Event.build_id == build_id, Event.type == event_type, Event.id > after).limit(1)
    return await tx.session.scalar(query) is not None


async def _count_sleeps(tx: Transaction, build_id: uuid.UUID, *, after: int) -> int:
    count = select(func.count()).where(
        Event.build_id == build_id,
        Event.type == StatusEvent.type,
        Event.id > after,
        Event.data["status"].astext == Status.SLEEPING,
    )
    return int(await tx.session.scalar(count) or 0)


async def calls_before(
    tx: Transaction, build_id: uuid.UUID, turn: int, since: datetime | None, limit: int
) -> Sequence[tuple[ToolCall, str]]:
    """The last calls before a turn, in order, each with the stored answer that asked for it.

    Args:
        tx: the transaction.
        build_id: the build.
        turn: calls of this turn are left out.
        since: only calls of turns that were answered after this.
        limit: the most calls.
    """
    query = (
        select(ToolCall, Message.content)
        .join(Turn, and_(Turn.build_id == ToolCall.build_id, Turn.number == ToolCall.turn))
        .join(
            Message,
            and_(Message.build_id == ToolCall.build_id, Message.turn == ToolCall.turn, Message.role == "assistant"),
        )
        .where(ToolCall.build_id == build_id, ToolCall.turn < turn)
        .order_by(ToolCall.turn.desc(), ToolCall.position.desc())
        .limit(limit)
    )
    if since is not None:
        query = query.where(Turn.answered_at > since)
    rows = (await tx.session.execute(query)).all()
    return [(call, content) for call, content in reversed(rows)]


async def mark_loss_reported(tx: Transaction, build_id: uuid.UUID) -> None:
    """Note that the feed says how much of the build's record was lost; the agent is told in its next turn."""
    build = await tx.session.get_one(Build, build_id)
    build.lost_minutes = None
    await tx.session.flush()
