"""Tool calls: claiming one, storing its one result, and the record from which lost edits are applied again."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import UUID, and_, bindparam, or_, select, text

from db.feed import APPEND_BINDS, LAST_EVENT, append_events_cte, append_params
from db.models import Message, Snapshot, ToolCall
from db.transaction import Transaction
from domain.answer import input_of
from domain.errors import RowsAreBehind, StaleClaim
from domain.events import BuildEvent, ToolStartedEvent
from domain.former_inputs import current_input
from domain.payloads import SandboxRef
from domain.recovery import EDITS, RecordedCall
from domain.sent_tools import digest_of_today
from domain.tool_output import parse_stored_blocks
from domain.tools import TOOLS

_MUTATING = [name for name, tool in TOOLS.items() if tool.mutating]


async def calls_since(tx: Transaction, build_id: uuid.UUID, snapshot: Snapshot | None) -> list[RecordedCall]:
    """The build's mutating calls since its snapshot, in order; all of them if the build has no snapshot of its own.

    Calls whose outcome was lost with a sandbox are left out: their results have told the agent already.
    """
    query = (
        select(ToolCall, Message.content)
        .join(
            Message,
            and_(Message.build_id == ToolCall.build_id, Message.turn == ToolCall.turn, Message.role == "assistant"),
        )
        .where(
            ToolCall.build_id == build_id,
            ToolCall.name.in_(_MUTATING),
            ToolCall.state == "done",
            ToolCall.intended_at.is_not(None),
            ~ToolCall.lost,
        )
        .order_by(ToolCall.turn, ToolCall.position)
    )
    taken_at = None
    if snapshot is not None and snapshot.build_id == build_id:
        taken_at = snapshot.created_at
        query = query.where(or_(ToolCall.intended_at > taken_at, ToolCall.done_at > taken_at))
    calls = []
    for call, content in await tx.session.execute(query):
        intended_before = taken_at is not None and call.intended_at is not None and call.intended_at <= taken_at
        calls.append(
            RecordedCall(
                call.tool_use_id,
                call.name,
                call.summary,
                _edit_input(content, call) if call.name in EDITS else {},
                succeeded=not call.is_error,
                unsure=intended_before,
            )
        )
    return calls


def _edit_input(answer: str, call: ToolCall) -> dict[str, Any]:
    value = input_of(parse_stored_blocks(answer), call.tool_use_id)
    return current_input(call.name, value) if isinstance(value, dict) else {}


async def open_calls_since(tx: Transaction, build_id: uuid.UUID, snapshot: Snapshot | None) -> dict[str, bool]:
    """The ids of the build's mutating calls without a result whose effects the snapshot can't have.

    Returns:
        For each whether the rows know that an attempt has begun it.
    """
    query = select(ToolCall.tool_use_id, ToolCall.state).where(
        ToolCall.build_id == build_id, ToolCall.name.in_(_MUTATING), ToolCall.state != "done"
    )
    if snapshot is not None and snapshot.build_id == build_id:
        query = query.where(or_(ToolCall.state == "requested", ToolCall.intended_at > snapshot.created_at))
    return {call_id: state == "intended" for call_id, state in await tx.session.execute(query)}


async def last_outcome_in(
    tx: Transaction, build_id: uuid.UUID, sandbox_id: str, snapshot: Snapshot | None
) -> str | None:
    """The id of the last mutating call since the snapshot that the sandbox has journaled an outcome of."""
    query = (
        select(ToolCall.tool_use_id)
        .where(
            ToolCall.build_id == build_id,
            ToolCall.sandbox_id == sandbox_id,
            ToolCall.name.in_(_MUTATING),
            ToolCall.state == "done",
            ~ToolCall.lost,
        )
        .order_by(ToolCall.turn.desc(), ToolCall.position.desc())
        .limit(1)
    )
    if snapshot is not None and snapshot.build_id == build_id:
        query = query.where(or_(ToolCall.intended_at > snapshot.created_at, ToolCall.done_at > snapshot.created_at))
    return await tx.session.scalar(query)


@dataclass(frozen=True)
class StoredCall:
    """A tool call's row, as it was when it was read."""

    build_id: uuid.UUID
    tool_use_id: str
    turn: int
    name: str
    summary: str
    state: str
    sandbox_id: str | None
    boot: str | None
    result: str | None
    is_error: bool | None
    lost: bool
    commit: str | None
    tools: str | None = None
    """The tools of its turn's prefix, if they are not those of this version."""
    secret_names: Sequence[str] = ()
    """Of the project's secrets."""


_CALL_OF_BUILD = """
    select calls.build_id, calls.tool_use_id, calls.turn, calls.name, calls.summary, calls.state, calls.sandbox_id,
        calls.boot, calls.result, calls.is_error, calls.lost, calls.commit,
        case when md5(prompts.tools) <> :tools then prompts.tools end as tools,
        array(
            select secrets.name from project_secrets as secrets
            join builds on builds.project_id = secrets.project_id
            where builds.id = :build
        ) as secret_names,
        messages.content
    from tool_calls as calls
    join messages
        on messages.build_id = calls.build_id and messages.turn = calls.turn and messages.role = 'assistant'
    left join turns on turns.build_id = calls.build_id and turns.number = calls.turn
    left join prompts on prompts.build_id = calls.build_id and prompts.prefix = turns.prefix
    where calls.build_id = :build and calls.tool_use_id = :tool_use_id
"""

_CALL = text(f"{_CALL_OF_BUILD} for update of calls").bindparams(bindparam("build", type_=UUID(as_uuid=True)))

_BEGIN = text(
    f"""
    with call as (
        {_CALL_OF_BUILD} and calls.state = 'requested' for update of calls
    ), taken as (
        update tool_calls
        set state = 'intended', claim = :claim, sandbox_id = :sandbox_id, boot = :boot,
            intended_at = coalesce(tool_calls.intended_at, now())
        from call
        where tool_calls.build_id = :build and tool_calls.tool_use_id = call.tool_use_id
        returning 1
    ), seq as (
        update builds set last_event_id = last_event_id + 1 from taken where builds.id = :build
        returning last_event_id as last
    ), made as (
        insert into events (build_id, id, type, turn, data)
        select :build, seq.last, '{ToolStartedEvent.type}', call.turn,
            jsonb_build_object('tool_use_id', call.tool_use_id, 'name', call.name, 'summary', call.summary)
        from seq, call
    )
    select call.* from call, seq
    """
).bindparams(bindparam("build", type_=UUID(as_uuid=True)), bindparam("claim", type_=UUID(as_uuid=True)))


async def begin_call(
    tx: Transaction, build_id: uuid.UUID, tool_use_id: str, claim: uuid.UUID, sandbox: SandboxRef
) -> tuple[StoredCall, str] | None:
    """Note in one statement that the first attempt at a call is about to act in this sandbox, and tell the feed.

    Returns:
        The call as it was before, and the stored answer that asked for it. None, with nothing written, if there is no
        such call or an earlier attempt has taken it.
    """
    key = {
        "build": build_id,
        "tool_use_id": tool_use_id,
        "tools": digest_of_today(),
        "claim": claim,
    }
    found = (await tx.execute(_BEGIN, key | sandbox.model_dump())).one_or_none()
    if found is None:
        return None
    tx.nudged.add(build_id)
    *row, answer = found
    return StoredCall(*row), answer


async def call_to_run(tx: Transaction, build_id: uuid.UUID, tool_use_id: str) -> tuple[StoredCall, str]:
    """A tool call and the stored answer that asked for it. The call's row stays locked until the transaction ends.

    Raises:
        RowsAreBehind: there is no such call.
    """
    key = {"build": build_id, "tool_use_id": tool_use_id, "tools": digest_of_today()}
    found = (await tx.execute(_CALL, key)).one_or_none()
    if found is None:
        raise RowsAreBehind(f"Tool call {tool_use_id} has no row.")
    *row, answer = found
    return StoredCall(*row), answer


_TAKE = text(
    f"""
    with taken as (
        update tool_calls
        set state = 'intended', claim = :claim, sandbox_id = :sandbox_id, boot = :boot,
            intended_at = coalesce(intended_at, now())
        where build_id = :build and tool_use_id = :tool_use_id
        returning 1
    ), {append_events_cte("taken")} {LAST_EVENT}
    """
).bindparams(*APPEND_BINDS, bindparam("claim", type_=UUID(as_uuid=True)))


async def take_call(
    tx: Transaction, call: StoredCall, claim: uuid.UUID, sandbox: SandboxRef | None, events: Sequence[BuildEvent]
) -> None:
    """Note in one statement that the attempt with this claim is about to act, and append events. The row is locked.

    `sandbox`: where the attempt acts; None keeps the sandbox of an earlier attempt.
    """
    location = {"sandbox_id": call.sandbox_id, "boot": call.boot} if sandbox is None else sandbox.model_dump()
    key = {"tool_use_id": call.tool_use_id, "claim": claim}
    await tx.execute(_TAKE, append_params(call.build_id, events, call.turn) | key | location)
    tx.nudged.add(call.build_id)


_CLAIM = text("update tool_calls set claim = :claim where build_id = :build and tool_use_id = :tool_use_id").bindparams(
    bindparam("build", type_=UUID(as_uuid=True)), bindparam("claim", type_=UUID(as_uuid=True))
)


async def claim_call(tx: Transaction, call: StoredCall, claim: uuid.UUID) -> None:
    """Take the call from the attempt that holds it, without running it. The row is locked."""
    await tx.execute(_CLAIM, {"build": call.build_id, "tool_use_id": call.tool_use_id, "claim": claim})


_RESULT = text(
    f"""
    with written as (
        update tool_calls
        set state = 'done', is_error = :is_error, result = :result, lost = :lost, commit = :commit, done_at = now()
        where build_id = :build and tool_use_id = :tool_use_id and claim = :claim and state <> 'done'
        returning 1
    ), {append_events_cte("written")} {LAST_EVENT}
    """
).bindparams(*APPEND_BINDS, bindparam("claim", type_=UUID(as_uuid=True)))


async def store_result(
    tx: Transaction,
    call: StoredCall,
    claim: uuid.UUID,
    *,
    result: str,
    is_error: bool,
    lost: bool,
    commit: str | None,
    event: BuildEvent,
) -> None:
    """Write the one result of a tool call and append its event, in one statement, if the claim still holds.

    Raises:
        StaleClaim: it does not; nothing is written.
    """
    outcome = {"result": result, "is_error": is_error, "lost": lost, "commit": commit}
    key = {"tool_use_id": call.tool_use_id, "claim": claim}
    written = await tx.execute(_RESULT, append_params(call.build_id, [event], call.turn) | key | outcome)
    if written.first() is None:
        raise StaleClaim(f"Another attempt has taken tool call {call.tool_use_id}.")
    tx.nudged.add(call.build_id)


async def last_calls(tx: Transaction, build_id: uuid.UUID, limit: int) -> Sequence[ToolCall]:
    """The build's last tool calls, the last one first."""
    return (
        await tx.session.scalars(
            select(ToolCall)
            .where(ToolCall.build_id == build_id)
            .order_by(ToolCall.turn.desc(), ToolCall.position.desc())
            .limit(limit)
        )
    ).all()


async def last_failed_calls(tx: Transaction, build_id: uuid.UUID, limit: int) -> Sequence[ToolCall]:
    """The build's last tool calls that ended in an error, the last one first. Lost outcomes do not count."""
    return (
        await tx.session.scalars(
            select(ToolCall)
            .where(ToolCall.build_id == build_id, ToolCall.is_error.is_(True), ~ToolCall.lost)
            .order_by(ToolCall.turn.desc(), ToolCall.position.desc())
            .limit(limit)
        )
    ).all()
