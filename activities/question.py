"""Ask the founder when the agent is stuck."""

import uuid
from collections.abc import Sequence
from typing import Any

from temporalio import activity

from activities.runtime.errors import application_errors
from activities.tool_outcome import error_of
from db import steering
from db.models import Question, ToolCall
from db.session import Sessions
from db.tool_calls import last_calls, last_failed_calls
from db.transaction import Transaction, transaction
from db.turns import final_text, stored_answers
from domain.guards import WINDOW, call_signature
from domain.payloads import AskedFounder, AskFounder
from domain.plan import named_blocker
from domain.question import ASKED, Attempt, about_blocker, about_circle, about_error
from domain.tool_output import parse_stored_blocks, result_text

_SEARCHED_CALLS = 200
"""Search this many of the build's last calls for the error that it is stuck on."""


class QuestionActivities:
    """The activity `ask_founder`."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    @activity.defn
    @application_errors
    async def ask_founder(self, request: AskFounder) -> AskedFounder:
        """Store the question and show it in the feed, once. If a message or restore of the founder is pending, ask
        nothing and return that instead: it may be the answer already. A question that is open is not asked again."""
        build_id, question_id = uuid.UUID(request.build_id), uuid.UUID(request.question_id)
        async with transaction(self._sessions) as tx:
            await steering.lock_build(tx, build_id)
            if pending := await steering.pending_input(tx, build_id):
                return AskedFounder(message=pending.message, restore=pending.restore)
            if request.error is not None:
                text = about_error(await _attempts_with_error(tx, build_id, request.error))
            elif request.blocked_turn is not None:
                final = await final_text(tx, build_id, request.blocked_turn)
                text = about_blocker(named_blocker(final or "") or "")
            else:
                text = about_circle(await _attempts_with_call(tx, build_id, request.call or ""))
            if await steering.has_open_question(tx, build_id):
                return AskedFounder(reason=ASKED)  # a run of the workflow that was lost has asked it
            question = Question(
                id=question_id,
                build_id=build_id,
                problem=text.problem,
                tried=text.tried,
                options=text.options,
            )
            await steering.add_question(tx, question)
        return AskedFounder(reason=ASKED)


async def _attempts_with_error(tx: Transaction, build_id: uuid.UUID, error: str) -> list[Attempt]:
    """The build's last calls that ended in this error, in order."""
    calls = await last_failed_calls(tx, build_id, _SEARCHED_CALLS)
    return await _attempts(tx, build_id, [call for call in calls if error_of(call, call.result or "") == error])


async def _attempts_with_call(tx: Transaction, build_id: uuid.UUID, signature: str) -> list[Attempt]:
    """The build's last calls with this signature, in order."""
    calls = await last_calls(tx, build_id, WINDOW)
    signatures: dict[str, str] = {}
    for blocks in (await _answers(tx, build_id, {call.turn for call in calls})).values():
        used = (block for block in blocks if block["type"] == "tool_use")
        signatures |= {block["id"]: call_signature(block["name"], block["input"]) for block in used}
    return await _attempts(tx, build_id, [call for call in calls if signatures[call.tool_use_id] == signature])


async def _attempts(tx: Transaction, build_id: uuid.UUID, calls: Sequence[ToolCall]) -> list[Attempt]:
    answers = await _answers(tx, build_id, {call.turn for call in calls})
    return [
        Attempt(
            turn=call.turn,
            narration=" ".join(str(block["text"]) for block in answers[call.turn] if block["type"] == "text"),
            call=call.summary,
            result=result_text(call.result) if call.result else "",
        )
        for call in reversed(calls)
    ]


async def _answers(tx: Transaction, build_id: uuid.UUID, turns: set[int]) -> dict[int, list[dict[str, Any]]]:
    """The content blocks of the agent's answers in these turns."""
    answers = await stored_answers(tx, build_id, turns)
    return {turn: parse_stored_blocks(content) for turn, content in answers.items()}
