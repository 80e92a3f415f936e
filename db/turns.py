"""Turns: claiming one, its user message, the conversation so far, and its stored answer."""

import json
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import JSON, UUID, Date, Integer, Text, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import JSONB

from db import money
from db.feed import APPEND_BINDS, LAST_EVENT, append_events_cte, append_params
from db.models import WITHDRAWN_TURN, Event, GateRun, Message, Prompt, ToolCall, Turn
from db.switches import OFF_SCOPE, Standing
from db.transaction import Transaction
from domain.answer import Reading, to_stored_text
from domain.errors import RowsAreAhead, RowsAreBehind, StaleClaim
from domain.events import BuildEvent, ResumedEvent, TurnStartedEvent
from domain.payloads import RequestedCall
from domain.tool_output import parse_stored_blocks, render_result


@dataclass(frozen=True)
class ClaimedTurn:
    """A turn after an attempt has tried to take it."""

    outcome: str | None
    """The stored outcome, if the turn was answered before; it was not taken then."""
    lost: uuid.UUID | None
    """The claim of the earlier attempt that it was taken from, if there was one."""
    is_held: bool = False
    """Whether an earlier attempt may still be making the call, so that it was not taken from it."""
    prefix: int = 0
    """The prefix that its request begins with. A later attempt has the same."""
    fallbacks: tuple[str, ...] = ()
    """The fallback models that the prefix names."""
    system_notices: bool = False
    """Whether the notes of this turn, which this attempt is the first to make, are a message of the role `system`."""


@dataclass(frozen=True)
class TurnStart:
    """What a turn starts from: its build, how the turn before ended, and what the agent has not been told of."""

    user_id: str
    model: str
    suspended: bool
    switched_off: str | None
    """The scope of a switch that is off for the build."""
    fleet_is_limited: bool
    """Whether there is a limit on what all builds together spend in a day."""
    sandbox_seconds: int
    """How long a sandbox has run for the build today."""
    previous_outcome: str | None
    """The stop reason of the turn before; None before the first turn."""
    previous_details: dict[str, Any] | None
    """What a safety check said of the turn before, if it declined it."""
    has_unread_messages: bool
    """Whether there are founder's messages that no turn has read."""
    has_unreported_restores: bool
    """Whether there are restores of the workspace that no turn has told the agent of."""
    settings: int
    """The version of the build's settings; 0 if none was changed."""
    is_closed: bool = False
    """Whether the build has ended."""
    has_open_calls: bool = False
    """Whether a tool call of the turn before has no result."""
    has_new_secrets: bool = False
    """Whether the agent was told other names of secrets than the project has now."""
    last_withdrawn: int = 0
    """The number of the last message that its founder has taken back, with no unread one before it; 0 without one."""

    @property
    def standing(self) -> Standing:
        """What holds the build regardless of its budget."""
        return Standing.read(self.suspended, self.switched_off)


_START = f"""
    builds.user_id, coalesce(builds.model, ''), users.suspended, {OFF_SCOPE},
    exists (select 1 from limits where name = 'fleet_day' and value is not null),
    sandbox_seconds(builds.id, :day), turns.outcome, turns.details,
    exists (select 1 from founder_messages where build_id = :build and turn is null),
    exists (select 1 from restores where build_id = :build and state = 'done' and turn is null),
    builds.settings_version,
    builds.closed_at is not null,
    exists (select 1 from tool_calls where build_id = :build and turn = :before and state <> 'done'),
    coalesce(builds.known_secrets, '[]') <> coalesce(
        (
            select jsonb_agg(name order by name collate "C") from project_secrets
            where project_id = builds.project_id
        ),
        '[]'
    ),
    coalesce(
        (
            select max(number) from founder_messages as withdrawn
            where build_id = :build and turn = {WITHDRAWN_TURN} and not exists (
                select 1 from founder_messages
                where build_id = :build and turn is null and number < withdrawn.number
            )
        ),
        0
    )
"""
"""The values of a `TurnStart`, in its order."""

_OF_BUILD = """
    from builds
    join users on users.id = builds.user_id
    left join turns on turns.build_id = builds.id and turns.number = :before
"""

_TURN_START = text(f"select {_START} {_OF_BUILD} where builds.id = :build").bindparams(
    bindparam("build", type_=UUID(as_uuid=True)), bindparam("day", type_=Date())
)


async def load_turn_start(tx: Transaction, build_id: uuid.UUID, number: int, day: date) -> TurnStart:
    """Read what the turn starts from on this UTC day. `claim_turn` does it for a turn that is made."""
    values = {"build": build_id, "before": number - 1, "day": day}
    return TurnStart(*(await tx.execute(_TURN_START, values)).one())


async def last_turn(tx: Transaction, build_id: uuid.UUID) -> int:
    """The number of the build's last turn; 0 if it has none."""
    return int(await tx.session.scalar(select(func.max(Turn.number)).where(Turn.build_id == build_id)) or 0)


_CLAIM = text(
    f"""
    with newest as (
        select prefix, fallbacks, system_notices from prompts
        where build_id = :build and covers < :turn order by prefix desc limit 1
    ), inserted as (
        insert into turns (build_id, number, run_id, claim, prefix, counters)
        select id, :turn, :run, :claim, coalesce((select prefix from newest), 0), :counters
        from builds where id = :build and closed_at is null
        on conflict do nothing returning prefix
    )
    select {_START}, inserted.prefix, coalesce((select fallbacks::text from newest), '[]'),
        coalesce((select system_notices from newest), false)
    {_OF_BUILD} left join inserted on true where builds.id = :build
    """
).bindparams(
    *(bindparam(name, type_=UUID(as_uuid=True)) for name in ("build", "claim")),
    bindparam("turn", type_=Integer()),
    bindparam("run", type_=Text()),
    bindparam("counters", type_=JSONB(none_as_null=True)),
    bindparam("day", type_=Date()),
)


async def claim_turn(
    tx: Transaction,
    build_id: uuid.UUID,
    number: int,
    day: date,
    *,
    run_id: str,
    claim: uuid.UUID,
    counters: dict[str, Any] | None = None,
    waits: bool = False,
    lost_after: float = 0,
) -> tuple[TurnStart, ClaimedTurn]:
    """Take the turn's row for this attempt, unless the turn has been answered, or an earlier attempt's call may still
    be in flight although its run is gone, as after a reset. What the turn starts from is as it was just before.

    Args:
        day: the UTC day of the attempt.
        waits: whether this attempt can wait for an attempt of another run that has not learned that its run is gone.
        lost_after: an earlier attempt is lost after this many seconds in which it does not say that it makes the call.

    Raises:
        RowsAreAhead: the build has ended, or has a later turn.
        RowsAreBehind: the turn before is missing, or has no answer or not all of its results. The transaction has to be
            rolled back: it holds the new row.
    """
    values = {"build": build_id, "turn": number, "before": number - 1, "day": day}
    values |= {"run": run_id, "claim": claim, "counters": counters}
    *start_values, prefix, fallback_names, system_notices = (await tx.execute(_CLAIM, values)).one()
    start = TurnStart(*start_values)
    if start.is_closed:
        raise RowsAreAhead("The build has ended, so the model is not asked for another turn.")
    if prefix is not None:
        if number > 1 and (start.previous_outcome is None or start.has_open_calls):
            raise RowsAreBehind(f"Turn {number - 1} is not complete, so turn {number} can't follow it.")
        fallbacks = tuple(json.loads(fallback_names))
        return start, ClaimedTurn(None, None, prefix=prefix, fallbacks=fallbacks, system_notices=system_notices)
    return start, await _take_turn(tx, build_id, number, run_id=run_id, claim=claim, waits=waits, lost_after=lost_after)


async def _take_turn(
    tx: Transaction,
    build_id: uuid.UUID,
    number: int,
    *,
    run_id: str,
    claim: uuid.UUID,
    waits: bool,
    lost_after: float,
) -> ClaimedTurn:
    """Take the row of a turn from an earlier attempt, if there is a call to make."""
    turn = await tx.session.get_one(Turn, (build_id, number), with_for_update=True, populate_existing=True)
    if await tx.session.get(Turn, (build_id, number + 1)) is not None:
        raise RowsAreAhead(f"The build has gone on since turn {number}.")
    if turn.outcome is not None:
        return ClaimedTurn(turn.outcome, None, prefix=turn.prefix)
    other_run = waits and turn.run_id != run_id
    if await money.is_in_flight(tx, turn.claim, other_run=other_run, seconds=lost_after):
        return ClaimedTurn(None, None, is_held=True)
    lost, turn.claim, turn.run_id = turn.claim, claim, run_id
    prompt = await tx.session.get(Prompt, (build_id, turn.prefix))
    fallbacks = tuple(prompt.fallbacks) if prompt is not None else ()
    return ClaimedTurn(None, lost, prefix=turn.prefix, fallbacks=fallbacks)


_NARRATE = text(
    f"""
    with own_turn as (
        select 1 from turns
        where build_id = :build and number = :turn and claim = :claim and outcome is null
        for share
    ), {append_events_cte("own_turn")} {LAST_EVENT}
    """
).bindparams(*APPEND_BINDS, bindparam("claim", type_=UUID(as_uuid=True)))


async def narrate(
    tx: Transaction, build_id: uuid.UUID, number: int, claim: uuid.UUID, events: Sequence[BuildEvent]
) -> None:
    """Append events to the feed in one statement, if this attempt still holds the turn.

    Raises:
        StaleClaim: another attempt has taken it.
    """
    parameters = append_params(build_id, events, number) | {"turn": number, "claim": claim}
    if (await tx.execute(_NARRATE, parameters)).first() is None:
        raise StaleClaim(f"another attempt has taken turn {number}")
    tx.nudged.add(build_id)


_MESSAGE = text(
    "insert into messages (build_id, turn, role, content) values (:build, :turn, :role, :content)"
).bindparams(bindparam("build", type_=UUID(as_uuid=True)))


async def store_user_message(
    tx: Transaction, build_id: uuid.UUID, number: int, blocks: Sequence[str], notices: Sequence[str] = ()
) -> None:
    """Store the texts of the turn's user message before it is sent, and those of the `system` message that follows it.

    From then on they never change. The first attempt does this. A turn whose user message is tool results alone has no
    row of it.
    """
    for role, texts in (("user", blocks), ("system", notices)):
        if texts:
            content = to_stored_text([{"type": "text", "text": text} for text in texts])
            await tx.execute(_MESSAGE, {"build": build_id, "turn": number, "role": role, "content": content})


_MESSAGES = text(
    """
    select turn + 1 as turn, 0 as part, position, result as content from tool_calls
    where build_id = :build and turn >= :after and turn < :turn
    union all
    select turn, case role when 'user' then 1 when 'system' then 2 else 3 end, 0, content from messages
    where build_id = :build and (turn < :turn or turn = :turn and role <> 'assistant')
        and (turn > :after or turn = :after and role = 'assistant')
    order by 1, 2, 3
    """
).bindparams(bindparam("build", type_=UUID(as_uuid=True)))


async def load_messages(tx: Transaction, build_id: uuid.UUID, turn: int, after: int = 0) -> list[str]:
    """The messages after those that turn `after` began with, up to and including those of `turn`.

    Each is the JSON text to send, joined from stored texts that never change. Images are still placeholders.
    """
    messages: list[str] = []
    results: list[str] = []
    results_of = 0
    for of_turn, part, _, content in await tx.execute(_MESSAGES, {"build": build_id, "turn": turn, "after": after}):
        if content is None:
            raise LookupError(f"a tool call of turn {of_turn - 1} has no result yet")
        if results and of_turn != results_of:
            # The turn that they were sent with has no answer in the conversation: it was declined.
            messages.append(_user_message(results))
            results = []
        results_of = of_turn
        own = content if part == 0 else content[1:-1]
        if part >= 2:
            if results:
                messages.append(_user_message(results))
            messages.append(f'{{"role":"{"system" if part == 2 else "assistant"}","content":[{own}]}}')
            results = []
        elif own:
            results.append(own)
        if part == 1:
            messages.append(_user_message(results))
            results = []
    return [*messages, _user_message(results)] if results else messages


def _user_message(blocks: Sequence[str]) -> str:
    return f'{{"role":"user","content":[{",".join(blocks)}]}}'


async def resumes_since_last_turn(tx: Transaction, build_id: uuid.UUID, turn: int) -> list[ResumedEvent]:
    """The build's resumes since the turn before stored its user message, which its first start marks."""
    previous_start = (
        select(func.coalesce(func.min(Event.id), 0))
        .where(Event.build_id == build_id, Event.type == TurnStartedEvent.type, Event.turn == turn - 1)
        .scalar_subquery()
    )
    data = await tx.session.scalars(
        select(Event.data)
        .where(Event.build_id == build_id, Event.type == ResumedEvent.type, Event.id > previous_start)
        .order_by(Event.id)
    )
    return [ResumedEvent.model_validate(each) for each in data]


async def latest_findings(tx: Transaction, build_id: uuid.UUID) -> list[str]:
    """The findings of the build's last evidence gate."""
    findings = await tx.session.scalar(
        select(GateRun.findings).where(GateRun.build_id == build_id).order_by(GateRun.number.desc()).limit(1)
    )
    return [str(finding) for finding in findings or []]


_ANSWER = text(
    """
    with requested as (
        select * from json_to_recordset(:calls) as call
            (id text, position integer, name text, summary text, state text, is_error boolean, result text)
    ), used as (
        select tool_use_id from tool_calls where build_id = :build and tool_use_id in (select id from requested)
    ), own_turn as (
        update turns set outcome = :outcome, details = :details, answered_at = now()
        where build_id = :build and number = :turn and claim = :claim and outcome is null
            and not exists (select 1 from used)
        returning number
    ), answer as (
        insert into messages (build_id, turn, role, content)
        select :build, own_turn.number, 'assistant', :content from own_turn where :content is not null
    ), requested_calls as (
        insert into tool_calls (build_id, tool_use_id, turn, position, name, summary, state, is_error, result)
        select :build, call.id, own_turn.number, call.position, call.name, call.summary, call.state, call.is_error,
            call.result
        from own_turn, requested as call
    )
    select (select number from own_turn), array(select tool_use_id from used)
    """
).bindparams(
    bindparam("build", type_=UUID(as_uuid=True)),
    bindparam("claim", type_=UUID(as_uuid=True)),
    bindparam("calls", type_=JSON),
    bindparam("details", type_=JSONB(none_as_null=True)),
    bindparam("content", type_=Text()),
)


async def store_answer(
    tx: Transaction,
    *,
    build_id: uuid.UUID,
    number: int,
    claim: uuid.UUID,
    stop_reason: str,
    reading: Reading,
) -> set[str]:
    """Store an answer with its tool calls, unless an id of a call was used before in this build. Of a declined one,
    only what the safety check said is stored.

    Returns:
        The ids that were used before. With any, nothing is written.

    Raises:
        StaleClaim: another attempt has taken the turn; nothing is written.
    """
    calls = [
        _call_row(position, name, call, reading.invalid.get(call.tool_use_id))
        for position, (name, call) in enumerate(zip(reading.names, reading.calls, strict=True))
    ]
    stored = await tx.execute(
        _ANSWER,
        {
            "build": build_id,
            "turn": number,
            "claim": claim,
            "outcome": stop_reason,
            "details": reading.refusal,
            "content": None if reading.refusal is not None else to_stored_text(reading.blocks),
            "calls": calls,
        },
    )
    own, used = stored.one()
    if own is None and not used:
        raise StaleClaim(f"another attempt has taken turn {number}")
    return set(used)


_UNREADABLE = text(
    """
    update turns set unreadable = unreadable + 1
    where build_id = :build and number = :turn and claim = :claim and outcome is null and unreadable < :limit
    returning 1
    """
).bindparams(bindparam("build", type_=UUID(as_uuid=True)), bindparam("claim", type_=UUID(as_uuid=True)))


async def count_unreadable(tx: Transaction, build_id: uuid.UUID, number: int, claim: uuid.UUID, limit: int) -> bool:
    """Count an answer that can't be read; False if the turn has had as many as `limit`, or is another attempt's."""
    parameters = {"build": build_id, "turn": number, "claim": claim, "limit": limit}
    return (await tx.execute(_UNREADABLE, parameters)).first() is not None


def _call_row(position: int, name: str, call: RequestedCall, problem: str | None) -> dict[str, object]:
    row: dict[str, object] = {"id": call.tool_use_id, "position": position, "name": name, "summary": call.summary}
    if problem is None:
        return row | {"state": "requested"}
    return row | {"state": "done", "is_error": True, "result": render_result(call.tool_use_id, problem, is_error=True)}


async def stored_answer(tx: Transaction, build_id: uuid.UUID, number: int) -> str:
    """The stored assistant message of an answered turn, as the JSON text of its blocks."""
    return (await tx.session.get_one(Message, (build_id, number, "assistant"))).content


async def stored_refusal(tx: Transaction, build_id: uuid.UUID, number: int) -> dict[str, Any] | None:
    """What the safety check said that declined the turn's answer."""
    return (await tx.session.get_one(Turn, (build_id, number))).details


async def final_text(tx: Transaction, build_id: uuid.UUID, number: int) -> str | None:
    """The text with which the agent ended the turn; None if the agent did not end it itself."""
    turn = await tx.session.get(Turn, (build_id, number))
    if turn is None or turn.outcome != "end_turn":
        return None
    blocks = parse_stored_blocks(await stored_answer(tx, build_id, number))
    return "\n\n".join(str(block["text"]) for block in blocks if block.get("type") == "text").strip() or None


async def stored_answers(tx: Transaction, build_id: uuid.UUID, turns: Collection[int]) -> dict[int, str]:
    """The stored assistant messages of these turns by turn, each as the JSON text of its blocks."""
    rows = await tx.session.execute(
        select(Message.turn, Message.content).where(
            Message.build_id == build_id, Message.role == "assistant", Message.turn.in_(turns)
        )
    )
    return {turn: content for turn, content in rows}


async def last_answered_turn(tx: Transaction, build_id: uuid.UUID) -> int | None:
    """The number of the build's last turn that was answered; None before the first answer."""
    return await tx.session.scalar(
        select(func.max(Turn.number)).where(Turn.build_id == build_id, Turn.outcome.is_not(None))
    )


async def last_answers(tx: Transaction, build_id: uuid.UUID, turn: int, limit: int) -> Sequence[str]:
    """The last stored assistant messages before a turn, oldest first, each as the JSON text of its blocks."""
    rows = await tx.session.scalars(
        select(Message.content)
        .where(Message.build_id == build_id, Message.role == "assistant", Message.turn < turn)
        .order_by(Message.turn.desc())
        .limit(limit)
    )
    return rows.all()[::-1]


async def last_results(tx: Transaction, build_id: uuid.UUID, turn: int) -> Sequence[tuple[str, str]]:
    """The calls of the turn before, each with its summary and its stored result, in order."""
    rows = await tx.session.execute(
        select(ToolCall.summary, ToolCall.result)
        .where(ToolCall.build_id == build_id, ToolCall.turn == turn - 1, ToolCall.result.is_not(None))
        .order_by(ToolCall.position)
    )
    return [(summary, result or "") for summary, result in rows]


async def stored_user_message(tx: Transaction, build_id: uuid.UUID, turn: int) -> Sequence[str]:
    """The texts of the turn's user message and of the `system` message after it, as far as there are any, each as the
    JSON text of its blocks."""
    rows = await tx.session.scalars(
        select(Message.content)
        .where(Message.build_id == build_id, Message.turn == turn, Message.role != "assistant")
        .order_by(Message.role.desc())
    )
    return rows.all()
