"""What the rows of a build say of its state, so that a new run of its workflow goes on over them."""

import math
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import UUID, and_, any_, func, literal, or_, select, true, update
from sqlalchemy.dialects.postgresql import ARRAY, insert

from db.models import (
    Build,
    Event,
    FounderMessage,
    GateRun,
    LedgerEntry,
    Message,
    Preview,
    Project,
    Question,
    Restore,
    Snapshot,
    ToolCall,
    Turn,
    User,
)
from db.transaction import Transaction
from domain.events import ModelEvent, ResumedEvent, StatusEvent, TurnStartedEvent
from domain.lost_calls import KnownCall, LostCall
from domain.status import CLOSED, Status

SKIPPED_EVENTS = 100_000
"""Event ids that are left out after a restore of the database: more than any build has in the lost time."""

_WORKING = (Status.STARTING, Status.SCAFFOLD, Status.CODE, Status.CHECKS)


@dataclass(frozen=True)
class ImportedSnapshot:
    """A snapshot as the object store has it."""

    number: int
    archive_key: str
    manifest_key: str
    archive_bytes: int
    archive_sha256: str
    manifest_sha256: str
    files: int
    stored_at: datetime


@dataclass(frozen=True)
class OpenBuild:
    """An open build with what its workflow is labelled with. `answered`: its last answered turn."""

    build: Build
    plan: str
    answered: int


@dataclass(frozen=True)
class KnownCalls:
    """The last turn that rows have the answer of, and the model calls in the ledger that were not released."""

    answered: int
    calls: tuple[KnownCall, ...]


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
    if build.status_seq == 0:
        return await _record_of_new(tx, build)
    turn = await tx.session.scalar(select(Turn).where(Turn.build_id == build_id).order_by(Turn.number.desc()).limit(1))
    number = 0 if turn is None else turn.number
    calls, phases = (
        await tx.session.execute(
            select(func.count(), func.count(ToolCall.commit)).where(
                ToolCall.build_id == build_id, ToolCall.turn < number
            )
        )
    ).one()
    received, read, requested, done, restored_at = await _founders_requests(tx, build_id)
    questions = select(func.max(Question.asked_at)).where(Question.build_id == build_id, Question.tool_use_id.is_(None))
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


async def _record_of_new(tx: Transaction, build: Build) -> BuildRecord:
    """The record of a build that has not begun: only its founder, or an operator's recovery, can have written rows."""
    received, read, requested, done, restored_at = await _founders_requests(tx, build.id)
    return BuildRecord(
        build=build,
        turn=None,
        calls=0,
        phases=0,
        snapshots=await _highest_snapshot(tx, build.id),
        gate=None,
        message_received=received,
        message_read=read,
        restore_requested=requested,
        restore_done=done,
        restored_at=restored_at,
        asked_at=None,
        working_status=None,
        has_model=False,
        has_resumed=False,
        sleeps=0,
    )


async def _founders_requests(tx: Transaction, build_id: uuid.UUID) -> tuple[int, int, int, int, datetime | None]:
    """The last message and the last that was read, the last restore and the last that ended, and when that was."""
    received, read = (
        await tx.session.execute(
            select(
                func.coalesce(func.max(FounderMessage.number), 0),
                func.coalesce(func.max(FounderMessage.number).filter(FounderMessage.turn.is_not(None)), 0),
            ).where(FounderMessage.build_id == build_id)
        )
    ).one()
    restores = (
        await tx.session.execute(
            select(
                func.coalesce(func.max(Restore.number), 0),
                func.coalesce(func.max(Restore.number).filter(Restore.state != "requested"), 0),
                func.max(Restore.ended_at),
            ).where(Restore.build_id == build_id)
        )
    ).one()
    return received, read, *restores


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


# ---- an operator's recovery


async def open_builds(tx: Transaction) -> list[OpenBuild]:
    """All open builds, the oldest first."""
    answered = (
        select(func.coalesce(func.max(Turn.number), 0))
        .where(Turn.build_id == Build.id, Turn.answered_at.is_not(None))
        .correlate(Build)
        .scalar_subquery()
    )
    rows = await tx.session.execute(
        select(Build, User.plan, answered)
        .join(User, User.id == Build.user_id)
        .where(Build.closed_at.is_(None))
        .order_by(Build.created_at, Build.id)
    )
    return [OpenBuild(build, plan, turn) for build, plan, turn in rows]


async def known_builds(tx: Transaction, build_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Which of these builds have a row."""
    one_of = any_(literal(list(build_ids), ARRAY(UUID(as_uuid=True))))  # one parameter: there may be 100,000 builds
    return set(await tx.session.scalars(select(Build.id).where(Build.id == one_of)))


async def ready_without_product(tx: Transaction) -> set[uuid.UUID]:
    """The ready builds whose final snapshot no row names, as after a restore of the database to an earlier time."""
    has_final = select(Snapshot.id).where(Snapshot.build_id == Build.id, Snapshot.final, Snapshot.state == "stored")
    return set(await tx.session.scalars(select(Build.id).where(Build.status == Status.READY, ~has_final.exists())))


async def last_event_at(tx: Transaction) -> datetime | None:
    """When the last event of an open build was written: to this moment the database was put back, if it was.

    What a recovery writes to the feeds of closed builds is left out.
    """
    last = (
        select(Event.created_at).where(Event.build_id == Build.id).order_by(Event.id.desc()).limit(1).correlate(Build)
    ).lateral()
    query = select(func.max(last.c.created_at)).select_from(Build).join(last, true()).where(Build.closed_at.is_(None))
    at: datetime | None = await tx.session.scalar(query)
    return at


async def has_stored_snapshots(tx: Transaction) -> bool:
    """Whether any row names a snapshot in the object store."""
    return await tx.session.scalar(select(Snapshot.id).where(Snapshot.state == "stored").limit(1)) is not None


async def stored_snapshots(tx: Transaction, build_id: uuid.UUID) -> Sequence[Snapshot]:
    """The snapshots that rows name as stored, in order."""
    return (
        await tx.session.scalars(
            select(Snapshot).where(Snapshot.build_id == build_id, Snapshot.state == "stored").order_by(Snapshot.number)
        )
    ).all()


async def import_snapshot(tx: Transaction, build: Build, snapshot: ImportedSnapshot) -> None:
    """Insert the row of a snapshot that is in the object store, or complete one whose snapshot was being taken."""
    values = {
        "state": "stored",
        "claim": uuid.uuid4(),
        "archive_key": snapshot.archive_key,
        "manifest_key": snapshot.manifest_key,
        "archive_bytes": snapshot.archive_bytes,
        "archive_sha256": snapshot.archive_sha256,
        "manifest_sha256": snapshot.manifest_sha256,
        "files": snapshot.files,
        "created_at": snapshot.stored_at,
        "stored_at": snapshot.stored_at,
    }
    await tx.session.execute(
        insert(Snapshot)
        .values(
            id=uuid.uuid4(),
            build_id=build.id,
            project_id=build.project_id,
            number=snapshot.number,
            reason="imported",
            **values,
        )
        .on_conflict_do_update(
            index_elements=["build_id", "number"], set_=values, where=Snapshot.state.in_(("taking", "failed"))
        )
    )


async def book_lost_calls(tx: Transaction, build: Build, calls: Sequence[LostCall], day: date) -> int:
    """Book model calls whose rows were lost, at the mean cost of the build's known calls, or else of all of its model.

    A repeat books nothing twice. Returns the sum in µ$.
    """
    known = select(func.avg(LedgerEntry.cost)).where(LedgerEntry.state == "settled", LedgerEntry.cost > 0)
    mean = await tx.session.scalar(known.where(LedgerEntry.build_id == build.id))
    if mean is None:
        mean = await tx.session.scalar(known.where(LedgerEntry.model == build.model))
    if mean is None:
        mean = await tx.session.scalar(known)
    cost, booked = math.ceil(mean or 0), 0
    for call in calls:
        inserted = await tx.session.scalar(
            insert(LedgerEntry)
            .values(
                id=uuid.uuid5(build.id, f"lost {call.name}"),
                build_id=build.id,
                user_id=build.user_id,
                turn=call.turn,
                day=day,
                model=build.model or "",
                kind=call.kind,
                state="estimated",
                cost=cost,
                closed_at=func.now(),
            )
            .on_conflict_do_nothing()
            .returning(LedgerEntry.id)
        )
        booked += cost if inserted is not None else 0
    return booked


async def note_loss(tx: Transaction, build_id: uuid.UUID, lost_minutes: int | None) -> None:
    """Note how much of a build's record was lost.

    What an earlier recovery has noted stays until the agent is told, unless more was lost.
    """
    build = await tx.session.get_one(Build, build_id, with_for_update=True)
    noted = [minutes for minutes in (build.lost_minutes, lost_minutes) if minutes is not None]
    build.lost_minutes = max(noted, default=None)
    await tx.session.flush()


async def skip_events(tx: Transaction) -> None:
    """Leave out event ids that viewers may have seen in the lost time, of each build that is open or has a preview."""
    previewed = select(Preview.build_id).where(Preview.state != "closed")
    await tx.session.execute(
        update(Build)
        .where(or_(Build.closed_at.is_(None), Build.id.in_(previewed)))
        .values(last_event_id=Build.last_event_id + SKIPPED_EVENTS)
    )


@dataclass(frozen=True)
class LostRow:
    """What a build's workflow says of its row."""

    build_id: uuid.UUID
    user_id: str
    project_id: uuid.UUID
    project_name: str
    goal: str
    started_at: datetime


async def insert_lost_row(tx: Transaction, lost: LostRow, status: Status, reason: str | None) -> None:
    """Insert the row of a build whose workflow is all that is left of it, and those of its user and project."""
    await tx.session.execute(insert(User).values(id=lost.user_id).on_conflict_do_nothing())
    project = {"id": lost.project_id, "user_id": lost.user_id, "name": lost.project_name}
    await tx.session.execute(insert(Project).values(**project).on_conflict_do_nothing())
    await tx.session.execute(
        insert(Build)
        .values(
            id=lost.build_id,
            project_id=lost.project_id,
            user_id=lost.user_id,
            goal=lost.goal,
            body_hash="",
            status=status,
            reason=reason,
            created_at=lost.started_at,
            started_at=lost.started_at,
            admitted_at=lost.started_at,
            closed_at=func.now() if status in CLOSED else None,
            last_event_id=SKIPPED_EVENTS,
        )
        .on_conflict_do_nothing(index_elements=["id"])
    )


async def known_calls(tx: Transaction, build_id: uuid.UUID) -> KnownCalls:
    """The model calls of a build that rows know of."""
    answered = await tx.session.scalar(
        select(func.max(Turn.number)).where(Turn.build_id == build_id, Turn.answered_at.is_not(None))
    )
    entries = await tx.session.execute(
        select(LedgerEntry.kind, LedgerEntry.turn, LedgerEntry.opened_at).where(
            LedgerEntry.build_id == build_id, LedgerEntry.state != "released"
        )
    )
    return KnownCalls(int(answered or 0), tuple(KnownCall(*entry) for entry in entries))
