"""Turns: claiming one, what is said in it, and the stored answer."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Build, Event, GateRun, Message, Prompt, ToolCall, Turn
from domain.answer import Reading, to_stored_text
from domain.errors import StaleClaim, TurnOfAnotherRun
from domain.events import EventType
from domain.payloads import RequestedCall
from domain.tool_output import parse_stored_blocks, render_result


@dataclass(frozen=True)
class ClaimedTurn:
    """A turn as an attempt found it. `outcome` is set when it was answered before; `lost` is the claim taken over."""

    outcome: str | None
    lost: uuid.UUID | None


def _check_run(turn: Turn, run_id: str) -> None:
    if turn.run_id != run_id:
        raise TurnOfAnotherRun(
            f"Turn {turn.number} was already made by another run of this workflow ({turn.run_id}), as after a workflow "
            "reset, which builds do not support yet. Start a new build: it continues from the last snapshot."
        )


async def claim_turn(
    session: AsyncSession, build_id: uuid.UUID, number: int, run_id: str, claim: uuid.UUID
) -> ClaimedTurn:
    """Take the turn's row for this attempt, unless it has been answered.

    Raises:
        TurnOfAnotherRun: the row is of another run of the workflow, as after a reset.
    """
    made = await session.scalar(
        upsert(Turn)
        .values(build_id=build_id, number=number, run_id=run_id, claim=claim)
        .on_conflict_do_nothing()
        .returning(Turn.claim)
    )
    if made:
        return ClaimedTurn(None, None)
    turn = await session.get_one(Turn, (build_id, number), with_for_update=True, populate_existing=True)
    _check_run(turn, run_id)
    if turn.outcome is not None:
        return ClaimedTurn(turn.outcome, None)
    lost, turn.claim = turn.claim, claim
    return ClaimedTurn(None, lost)


async def hold_claim(session: AsyncSession, build_id: uuid.UUID, number: int, claim: uuid.UUID) -> None:
    """Make sure that this attempt still holds the turn, until the transaction ends.

    Raises:
        StaleClaim: another attempt has taken it.
    """
    held = await session.scalar(
        select(Turn.claim)
        .where(Turn.build_id == build_id, Turn.number == number, Turn.claim == claim, Turn.outcome.is_(None))
        .with_for_update(read=True)
    )
    if held is None:
        raise StaleClaim(f"another attempt has taken turn {number}")


async def store_user_message(session: AsyncSession, build_id: uuid.UUID, number: int, blocks: Sequence[str]) -> bool:
    """Store what is said in this turn, before its first send. False: a text is there already, and stays."""
    content = to_stored_text([{"type": "text", "text": text} for text in blocks])
    stored = await session.scalar(
        upsert(Message)
        .values(build_id=build_id, turn=number, role="user", content=content)
        .on_conflict_do_nothing()
        .returning(Message.turn)
    )
    return stored is not None


@dataclass(frozen=True)
class StoredConversation:
    """The stored texts of a request. `messages` is the JSON text of the whole array; images are still placeholders."""

    model: str
    system: str
    tools: str
    messages: list[str]


async def load_conversation(session: AsyncSession, build_id: uuid.UUID, turn: int) -> StoredConversation:
    """The conversation up to this turn's user message, put together from texts that never change."""
    model = await session.scalar(select(Build.model).where(Build.id == build_id))
    prompt = await session.get_one(Prompt, (build_id, 0))
    rows = await session.execute(
        select(Message.turn, Message.role, Message.content)
        .where(Message.build_id == build_id, Message.turn <= turn)
        .order_by(Message.turn, Message.role.desc())  # "user" before "assistant"
    )
    results: dict[int, list[str]] = {}
    for of_turn, result in await session.execute(
        select(ToolCall.turn, ToolCall.result)
        .where(ToolCall.build_id == build_id, ToolCall.turn < turn)
        .order_by(ToolCall.turn, ToolCall.position)
    ):
        if result is None:
            raise LookupError(f"a tool call of turn {of_turn} has no result yet")
        results.setdefault(of_turn, []).append(result)
    messages = []
    for of_turn, role, content in rows:
        before = results.get(of_turn - 1, []) if role == "user" else []
        own = content[1:-1]
        messages.append(f'{{"role":"{role}","content":[{",".join([*before, own] if own else before)}]}}')
    return StoredConversation(model or "", prompt.system, prompt.tools, messages)


async def outcome_of(session: AsyncSession, build_id: uuid.UUID, number: int) -> str | None:
    """The stop reason with which a turn was answered."""
    return await session.scalar(select(Turn.outcome).where(Turn.build_id == build_id, Turn.number == number))


async def resumed_since_last_said(session: AsyncSession, build_id: uuid.UUID, turn: int) -> list[dict[str, Any]]:
    """The data of each RESUMED event since the user message of the turn before; a turn's first start stored its own."""
    last_said = (
        select(func.coalesce(func.min(Event.id), 0))
        .where(Event.build_id == build_id, Event.type == EventType.TURN_STARTED, Event.turn == turn - 1)
        .scalar_subquery()
    )
    found = await session.scalars(
        select(Event.data)
        .where(Event.build_id == build_id, Event.type == EventType.RESUMED, Event.id > last_said)
        .order_by(Event.id)
    )
    return list(found)


async def latest_findings(session: AsyncSession, build_id: uuid.UUID) -> list[str]:
    """The findings of the build's last evidence gate."""
    found = await session.scalar(
        select(GateRun.findings).where(GateRun.build_id == build_id).order_by(GateRun.number.desc()).limit(1)
    )
    return [str(finding) for finding in found or []]


async def store_answer(
    session: AsyncSession,
    *,
    build_id: uuid.UUID,
    number: int,
    claim: uuid.UUID,
    stop_reason: str,
    reading: Reading,
) -> None:
    """Store an answer with its tool calls, in the caller's transaction.

    Raises:
        StaleClaim: another attempt has taken the turn; nothing is written.
    """
    held = await session.scalar(
        update(Turn)
        .where(Turn.build_id == build_id, Turn.number == number, Turn.claim == claim, Turn.outcome.is_(None))
        .values(outcome=stop_reason, answered_at=func.now())
        .returning(Turn.number)
    )
    if held is None:
        raise StaleClaim(f"another attempt has taken turn {number}")
    await session.execute(
        insert(Message).values(build_id=build_id, turn=number, role="assistant", content=to_stored_text(reading.blocks))
    )
    if reading.calls:
        await session.execute(
            insert(ToolCall),
            [
                _tool_call_row(build_id, number, position, name, call, reading.invalid.get(call.id))
                for position, (name, call) in enumerate(zip(reading.names, reading.calls, strict=True))
            ],
        )


def _tool_call_row(
    build_id: uuid.UUID, turn: int, position: int, name: str, call: RequestedCall, problem: str | None
) -> dict[str, object]:
    row: dict[str, object] = {
        "build_id": build_id,
        "tool_use_id": call.id,
        "turn": turn,
        "position": position,
        "name": name,
        "summary": call.t,
        "state": "requested",
        "is_error": None,
        "result": None,
    }
    if problem is not None:
        row |= {"state": "done", "is_error": True, "result": render_result(call.id, problem, is_error=True)}
    return row


async def stored_answer(session: AsyncSession, build_id: uuid.UUID, number: int) -> str:
    """The stored assistant message of an answered turn, as the JSON text of its blocks."""
    return (await session.get_one(Message, (build_id, number, "assistant"))).content


async def last_words(session: AsyncSession, build_id: uuid.UUID, turn: int) -> str | None:
    """What the agent said in the last turn before this one, if it ended its turn there; its handoff note."""
    before = await session.get(Turn, (build_id, turn - 1))
    if before is None or before.outcome != "end_turn":
        return None
    blocks = parse_stored_blocks(await stored_answer(session, build_id, turn - 1))
    return "\n\n".join(str(block["text"]) for block in blocks if block.get("type") == "text").strip() or None
