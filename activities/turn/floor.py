"""Floors: a new prefix made of rows, which needs neither a call of the model nor money.

It opens where a conversation can't be sent again and no summary of it can be had. Its first message says what the rows
say: the founder's messages, the commits, what the agent said and did last, and what it is told now. So it covers the
turn that waits for an answer, whose user message is part of it.
"""

import uuid
from collections.abc import Sequence

from db import compactions, money, prompts, turns
from db.events import last_event_data
from db.feed import append_events
from db.project_secrets import names_of_build
from db.transaction import Transaction
from domain.answer import to_stored_text
from domain.events import CompactedEvent, PlanEvent
from domain.summary import PENDING_CHARACTERS, LastTurn, Record, opening
from domain.text import storable
from domain.tool_output import displayable, parse_stored_blocks, result_text

_GOES_ON = (
    "It goes on in a new one, which begins with your messages, the commits and the agent's last steps. The work itself "
    "is as it was."
)
TOO_LONG = f"The agent's conversation had become too long for the model. {_GOES_ON}"
TOO_DEAR = f"The agent's conversation had become too long for a day's allowance. {_GOES_ON}"
TOO_MANY_IMAGES = f"The agent's conversation had come to hold too many screenshots. {_GOES_ON}"
NOT_ACCEPTED = f"The model no longer accepted the agent's conversation. {_GOES_ON}"
DECLINED = f"A safety check of the model declined the agent's conversation twice. {_GOES_ON}"
"""Why a floor was opened, for the founder."""

_LAST_ANSWERS = 8
"""What the agent said in its last answers is repeated, up to a length."""

_LONGEST_CHARACTER = 6
"""Bytes of a character in JSON."""


async def open_floor(
    tx: Transaction, call: money.Call, reason: str, tokens_before: int, secrets: Sequence[str]
) -> int | None:
    """Let the call's turn begin with a new prefix that covers it. The turn is unanswered, and its claim is the call's.

    Returns:
        The new prefix; None if the turn has such a prefix already, so that another would be no shorter.

    Raises:
        StaleClaim: another attempt has taken the turn.
    """
    if (await prompts.load_prefix(tx, call.build_id, call.prefix)).covers >= call.turn:
        return None
    record, last = await _kept(tx, call.build_id, call.turn, secrets)
    text = opening(record, last)
    prefix = await compactions.next_prefix(tx, call.build_id)
    message = f'{{"role":"user","content":{to_stored_text([{"type": "text", "text": text}])}}}'
    # A server that takes no messages of the role `system`, whatever the table says, is met with none.
    notices = False if reason == NOT_ACCEPTED else None
    await prompts.open_prefix(
        tx, call.build_id, call.prefix, prefix, covers=call.turn, opening=message, system_notices=notices
    )
    await prompts.use_prefix(tx, call.build_id, call.turn, call.claim, prefix)
    event = CompactedEvent(
        reason=reason, tokens_before=tokens_before, summary=storable(opening(record, last, for_people=True))
    )
    await append_events(tx, call.build_id, [event], turn=call.turn)
    return prefix


async def floor_tokens(tx: Transaction, build_id: uuid.UUID, turn: int, prefix: int) -> int:
    """An upper bound for the prompt of a floor that would be opened after this turn."""
    text = opening(*await _kept(tx, build_id, turn + 1, ()))
    fixed = await prompts.fixed_bytes(tx, build_id, prefix)
    return fixed + len(to_stored_text([{"text": text}]).encode()) + PENDING_CHARACTERS * _LONGEST_CHARACTER + 1000


async def read_record(tx: Transaction, build_id: uuid.UUID, secrets: Sequence[str]) -> Record:
    """What the rows of a build say of its conversation."""
    messages = await compactions.read_messages(tx, build_id)
    plan = await last_event_data(tx, build_id, PlanEvent.type)
    return Record(
        [displayable(text, secrets) for text in messages],
        await compactions.commit_titles(tx, build_id),
        [] if plan is None else PlanEvent.model_validate(plan).stories,
        await names_of_build(tx, build_id),
    )


async def _kept(tx: Transaction, build_id: uuid.UUID, turn: int, secrets: Sequence[str]) -> tuple[Record, LastTurn]:
    """What a conversation that begins with this turn is told of the one before."""
    answers = await turns.last_answers(tx, build_id, turn, _LAST_ANSWERS)
    said = [block["text"] for answer in answers for block in parse_stored_blocks(answer) if block.get("type") == "text"]
    results = [(summary, result_text(result)) for summary, result in await turns.last_results(tx, build_id, turn)]
    pending = await turns.stored_user_message(tx, build_id, turn)
    texts = [str(block["text"]) for content in pending for block in parse_stored_blocks(content)]
    words = "\n\n".join(str(text) for text in said if str(text).strip())
    return await read_record(tx, build_id, secrets), LastTurn(words, results, texts)
