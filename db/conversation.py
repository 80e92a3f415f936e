"""Read a build's conversation for people: its turns, and what its tool calls were asked and have returned."""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import defer

from db.models import GateRun, LedgerEntry, Message, ToolCall, Turn
from db.transaction import Transaction
from domain.conversation import IMAGE_MARK, image_mark

TURN = "turn"
"""The kind of a ledger entry of a turn's own call."""


@dataclass(frozen=True)
class TurnSums:
    """What the calls of one turn have used together. `cost`: in µ$."""

    calls: int = 0
    input_tokens: int = 0
    cache_write_tokens: int = 0
    cache_read_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0


@dataclass(frozen=True)
class ReadTurn:
    """A turn with its stored answer, its tool calls in order, without their results, and its sums."""

    turn: Turn
    answer: str | None
    calls: Sequence[ToolCall]
    sums: TurnSums


async def list_turns(tx: Transaction, build_id: uuid.UUID, before: int | None, limit: int) -> list[ReadTurn]:
    """Return up to `limit` of the build's turns before the one with this number, the newest first."""
    query = select(Turn).where(Turn.build_id == build_id)
    if before is not None:
        query = query.where(Turn.number < before)
    rows = (await tx.session.scalars(query.order_by(Turn.number.desc()).limit(limit))).all()
    numbers = [row.number for row in rows]
    if not numbers:
        return []
    answers = await tx.session.execute(
        select(Message.turn, Message.content).where(
            Message.build_id == build_id, Message.role == "assistant", Message.turn.in_(numbers)
        )
    )
    answer_of = {turn: content for turn, content in answers}
    calls = (
        await tx.session.scalars(
            select(ToolCall)
            .where(ToolCall.build_id == build_id, ToolCall.turn.in_(numbers))
            .order_by(ToolCall.turn, ToolCall.position)
            .options(defer(ToolCall.result, raiseload=True))
        )
    ).all()
    sums = await tx.session.execute(
        select(
            LedgerEntry.turn,
            func.count(),
            func.sum(LedgerEntry.input_tokens),
            func.sum(LedgerEntry.cache_write_5m_tokens + LedgerEntry.cache_write_1h_tokens),
            func.sum(LedgerEntry.cache_read_tokens),
            func.sum(LedgerEntry.output_tokens),
            func.sum(LedgerEntry.cost),
        )
        .where(
            LedgerEntry.build_id == build_id,
            LedgerEntry.turn.in_(numbers),
            LedgerEntry.kind == TURN,
            LedgerEntry.state != "released",
        )
        .group_by(LedgerEntry.turn)
    )
    sums_of = {turn: TurnSums(*map(int, each)) for turn, *each in sums}
    return [
        ReadTurn(
            row,
            answer_of.get(row.number),
            [call for call in calls if call.turn == row.number],
            sums_of.get(row.number, TurnSums()),
        )
        for row in rows
    ]


async def find_call(tx: Transaction, build_id: uuid.UUID, tool_use_id: str) -> tuple[ToolCall, str | None] | None:
    """Return a tool call of the build, and the stored answer that asked for it."""
    row = (
        await tx.session.execute(
            select(ToolCall, Message.content)
            .outerjoin(
                Message,
                and_(Message.build_id == ToolCall.build_id, Message.turn == ToolCall.turn, Message.role == "assistant"),
            )
            .where(ToolCall.build_id == build_id, ToolCall.tool_use_id == tool_use_id)
        )
    ).one_or_none()
    return None if row is None else (row[0], row[1])


async def list_calls_with_images(
    tx: Transaction, build_id: uuid.UUID, names: Collection[str], tool_use_id: str | None = None
) -> Sequence[ToolCall]:
    """Return the build's calls of these tools that have returned images; only the one with this id if one is named."""
    query = select(ToolCall).where(
        ToolCall.build_id == build_id,
        ToolCall.name.in_(names),
        ToolCall.state == "done",
        ToolCall.result.contains(IMAGE_MARK, autoescape=True),
    )
    if tool_use_id is not None:
        query = query.where(ToolCall.tool_use_id == tool_use_id)
    return (await tx.session.scalars(query)).all()


async def shows_image(tx: Transaction, build_id: uuid.UUID, sha256: str, key: str) -> bool:
    """Whether a tool call or a gate of the build has taken the image. `key`: the image's, in the object store."""
    in_result = (
        select(ToolCall.tool_use_id)
        .where(ToolCall.build_id == build_id, ToolCall.result.contains(image_mark(sha256), autoescape=True))
        .exists()
    )
    in_gate = (
        select(GateRun.number)
        .where(
            GateRun.build_id == build_id,
            or_(*(GateRun.screenshots[viewport].as_string() == key for viewport in ("desktop", "mobile"))),
        )
        .exists()
    )
    return bool(await tx.session.scalar(select(or_(in_result, in_gate))))
