"""Founder input to a build. Rows are the truth; the signal that announces one may be lost or doubled.

To add a row, lock the build's row first. So numbers follow commit order, and the gate, which takes the same lock before
a product passes, sees all earlier input.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, update

from db import access
from db.feed import append_events
from db.models import WITHDRAWN_TURN, Build, FounderMessage, Question, Restore
from db.transaction import Transaction
from domain.events import AnswerEvent, BuildEvent, MessageEvent, MessageWithdrawnEvent, QuestionEvent
from domain.payloads import PendingInput
from domain.question import AskedQuestion


async def lock_build(tx: Transaction, build_id: uuid.UUID, user_id: str | None = None) -> Build | None:
    """Lock the build's row until the transaction ends, and return it. With `user_id`, only if this user may see it."""
    query = select(Build).where(Build.id == build_id)
    if user_id is not None:
        query = query.where(access.owned(Build, user_id))
    return await tx.session.scalar(query.with_for_update(key_share=True).execution_options(populate_existing=True))


# ---- messages


async def find_message(tx: Transaction, build_id: uuid.UUID, idempotency_key: str) -> FounderMessage | None:
    """Return the message that a request with this key created."""
    return await tx.session.scalar(
        select(FounderMessage).where(
            FounderMessage.build_id == build_id, FounderMessage.idempotency_key == idempotency_key
        )
    )


async def count_unread(tx: Transaction, build_id: uuid.UUID) -> int:
    """Return how many messages no turn has read yet."""
    unread = select(func.count()).where(FounderMessage.build_id == build_id, FounderMessage.turn.is_(None))
    return int(await tx.session.scalar(unread) or 0)


async def add_message(
    tx: Transaction,
    build: Build,
    text: str,
    idempotency_key: str | None = None,
    *,
    question_id: uuid.UUID | None = None,
) -> FounderMessage:
    """Add a message or the answer to a question, and its event to the feed. The caller has locked the build's row."""
    last = await tx.session.scalar(
        select(func.coalesce(func.max(FounderMessage.number), 0)).where(FounderMessage.build_id == build.id)
    )
    message = FounderMessage(
        build_id=build.id,
        number=int(last or 0) + 1,
        text=text,
        idempotency_key=idempotency_key,
        question_id=question_id,
    )
    tx.session.add(message)
    await tx.session.flush()
    await tx.session.refresh(message)
    event: BuildEvent = MessageEvent(number=message.number, text=text)
    if question_id is not None:
        event = AnswerEvent(number=message.number, text=text, question_id=str(question_id))
    await append_events(tx, build.id, [event])
    return message


async def unread_messages(tx: Transaction, build_id: uuid.UUID) -> Sequence[FounderMessage]:
    """Return the messages that no turn has read yet, in order, locked until the transaction ends: meanwhile none of
    them can be taken back."""
    return (
        await tx.session.scalars(
            select(FounderMessage)
            .where(FounderMessage.build_id == build_id, FounderMessage.turn.is_(None))
            .order_by(FounderMessage.number)
            .with_for_update()
            .execution_options(populate_existing=True)
        )
    ).all()


async def list_messages(tx: Transaction, build_id: uuid.UUID) -> Sequence[FounderMessage]:
    """Return the build's messages in order, also those that were taken back."""
    query = select(FounderMessage).where(FounderMessage.build_id == build_id).order_by(FounderMessage.number)
    return (await tx.session.scalars(query)).all()


async def lock_message(tx: Transaction, build_id: uuid.UUID, number: int) -> FounderMessage | None:
    """Return the message, locked until the transaction ends. Like a turn, lock it before the build's row."""
    return await tx.session.get(FounderMessage, (build_id, number), with_for_update=True, populate_existing=True)


async def withdraw_message(tx: Transaction, message: FounderMessage) -> None:
    """Take back a locked message that no turn has read, and add the event to the feed."""
    message.turn, message.read_at = WITHDRAWN_TURN, func.now()
    await tx.session.flush()
    await append_events(tx, message.build_id, [MessageWithdrawnEvent(number=message.number)])


async def mark_read(tx: Transaction, messages: Sequence[FounderMessage], turn: int) -> None:
    """Record that this turn's user message, which this transaction stores, contains these messages."""
    for message in messages:
        message.turn, message.read_at = turn, func.now()
    await tx.session.flush()


async def last_message_read(tx: Transaction, build_id: uuid.UUID, turn: int) -> int:
    """Return the number of the last message that this turn has read; 0 if it has read none."""
    number = await tx.session.scalar(
        select(func.max(FounderMessage.number)).where(FounderMessage.build_id == build_id, FounderMessage.turn == turn)
    )
    return int(number or 0)


async def pending_input(tx: Transaction, build_id: uuid.UUID) -> PendingInput | None:
    """Return the numbers of the last unread message and the pending restore; None if there is neither."""
    message = await tx.session.scalar(
        select(func.max(FounderMessage.number)).where(
            FounderMessage.build_id == build_id, FounderMessage.turn.is_(None)
        )
    )
    restore = await tx.session.scalar(
        select(func.max(Restore.number)).where(Restore.build_id == build_id, Restore.state == "requested")
    )
    return PendingInput(message=message or 0, restore=restore or 0) if message or restore else None


async def close_input(tx: Transaction, build_id: uuid.UUID) -> PendingInput | None:
    """Stop accepting founder input, unless some is pending.

    Returns:
        The pending input, in which case nothing changes; None if the build is now closed to input.
    """
    build = await lock_build(tx, build_id)
    if pending := await pending_input(tx, build_id):
        return pending
    assert build is not None, "only an existing build has a gate"
    build.gate_passed_at = func.now()
    await tx.session.flush()
    return None


# ---- questions


@dataclass(frozen=True)
class AnsweredQuestion:
    """A question, and its answer if it has one."""

    question: Question
    answer: FounderMessage | None


async def add_question(tx: Transaction, question: Question) -> None:
    """Add a question, and its event to the feed. Does nothing if the question exists."""
    if await tx.session.get(Question, question.id) is not None:
        return
    tx.session.add(question)
    await tx.session.flush()
    event = QuestionEvent(
        question_id=str(question.id), problem=question.problem, tried=question.tried, options=question.options
    )
    if question.default_option is not None:
        event = event.model_copy(update={"default": question.default_option})
    await append_events(tx, question.build_id, [event])


async def add_agent_question(tx: Transaction, build_id: uuid.UUID, tool_use_id: str, asked: AskedQuestion) -> uuid.UUID:
    """Add a question that the agent has asked by this call, once, and its event to the feed. Returns its id."""
    question = Question(
        id=uuid.uuid5(build_id, tool_use_id),
        build_id=build_id,
        problem=asked.question,
        tried=[],
        options=list(asked.options),
        closed_at=func.now(),
        tool_use_id=tool_use_id,
        default_option=asked.default,
    )
    await add_question(tx, question)
    return question.id


async def open_agent_questions(tx: Transaction, build_ids: Sequence[uuid.UUID]) -> Sequence[Question]:
    """Return the questions that the agents of these builds have asked and that can still be answered, oldest first."""
    query = (
        select(Question)
        .join(Build, Build.id == Question.build_id)
        .outerjoin(FounderMessage, FounderMessage.question_id == Question.id)
        .where(
            Question.build_id.in_(build_ids),
            Question.tool_use_id.is_not(None),
            FounderMessage.number.is_(None),
            Build.closed_at.is_(None),
        )
        .order_by(Question.asked_at, Question.id)
    )
    return (await tx.session.scalars(query)).all() if build_ids else ()


async def find_question(
    tx: Transaction, build_id: uuid.UUID, question_id: uuid.UUID | None = None
) -> AnsweredQuestion | None:
    """Return the build's question with this id; without an id, the last one that it waited for."""
    query = (
        select(Question, FounderMessage)
        .outerjoin(FounderMessage, FounderMessage.question_id == Question.id)
        .where(Question.build_id == build_id)
        .order_by(Question.asked_at.desc())
        .limit(1)
    )
    is_meant = Question.tool_use_id.is_(None) if question_id is None else Question.id == question_id
    query = query.where(is_meant)
    row = (await tx.session.execute(query)).one_or_none()
    return None if row is None else AnsweredQuestion(*row)


async def questions_of(tx: Transaction, messages: Sequence[FounderMessage]) -> dict[uuid.UUID, Question]:
    """Return the questions that these messages answer, by id."""
    ids = [message.question_id for message in messages if message.question_id is not None]
    if not ids:
        return {}
    return {
        question.id: question for question in await tx.session.scalars(select(Question).where(Question.id.in_(ids)))
    }


async def has_open_question(tx: Transaction, build_id: uuid.UUID) -> bool:
    """Whether the build waits for the answer to a question."""
    query = select(Question.id).where(Question.build_id == build_id, Question.closed_at.is_(None)).limit(1)
    return await tx.session.scalar(query) is not None


async def close_question(tx: Transaction, build_id: uuid.UUID) -> None:
    """Close the build's open question, if any: it no longer waits for an answer."""
    await tx.session.execute(
        update(Question).where(Question.build_id == build_id, Question.closed_at.is_(None)).values(closed_at=func.now())
    )


# ---- nudges


async def missed_notifications(tx: Transaction, before: datetime) -> list[tuple[uuid.UUID, PendingInput]]:
    """Open builds with messages or a restore older than `before` that are pending and were not announced a second
    time."""
    of_open = (Build.closed_at.is_(None), Build.started_at.is_not(None))
    messages = await tx.session.execute(
        select(FounderMessage.build_id, func.max(FounderMessage.number))
        .join(Build, Build.id == FounderMessage.build_id)
        .where(FounderMessage.turn.is_(None), FounderMessage.nudged_at.is_(None), FounderMessage.created_at < before)
        .where(*of_open)
        .group_by(FounderMessage.build_id)
    )
    restores = await tx.session.execute(
        select(Restore.build_id, Restore.number)
        .join(Build, Build.id == Restore.build_id)
        .where(Restore.state == "requested", Restore.nudged_at.is_(None), Restore.created_at < before)
        .where(*of_open)
    )
    unread = [(build_id, PendingInput(message=number)) for build_id, number in messages]
    return unread + [(build_id, PendingInput(restore=number)) for build_id, number in restores]


async def mark_notified(tx: Transaction, build_id: uuid.UUID, pending: PendingInput) -> None:
    """Note that the workflow received this for certain. It is not repeated: each signal is an event of its history."""
    for row, number in ((FounderMessage, pending.message), (Restore, pending.restore)):
        await tx.session.execute(
            update(row)
            .where(row.build_id == build_id, row.number <= number, row.nudged_at.is_(None))
            .values(nudged_at=func.now())
        )
