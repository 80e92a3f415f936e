"""The user message of a turn: everything that Cofounder and the founder say to the agent, apart from tool results.

Cofounder speaks by notes; `domain/notes.py` has the text of each. Those of its own words are a message of the role
`system` behind the user message, if the conversation's prefix says so.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from activities.turn.floor import read_record
from db import restores, steering, turns
from db.events import last_event_data
from db.models import FounderMessage, Restore
from db.project_secrets import names_of_build, note_known
from db.transaction import Transaction
from domain import prompt
from domain.answer import REFUSAL, TEXT_CALL, UNSTORABLE
from domain.events import BudgetEvent, BudgetFields, BuildEvent, GuardEvent, PlanEvent, ResumedEvent
from domain.notes import NOTES, Quoted, TurnNote, Words
from domain.payloads import ThinkInput
from domain.refusals import describe_refusal
from domain.summary import Record
from domain.tool_output import displayable


@dataclass(frozen=True)
class _StoredFacts:
    """The `Facts` that notes are made of, as the rows of the build have them."""

    tx: Transaction
    build_id: uuid.UUID
    turn: int
    allow_calls: int
    secrets: Sequence[str]

    async def findings(self) -> list[str]:
        return await turns.latest_findings(self.tx, self.build_id)

    async def resumes(self) -> list[ResumedEvent]:
        return await turns.resumes_since_last_turn(self.tx, self.build_id, self.turn)

    async def handoff_note(self) -> str | None:
        return await turns.final_text(self.tx, self.build_id, self.turn - 1)

    async def unanswered_problem(self) -> str | None:
        last = await steering.find_question(self.tx, self.build_id)
        return None if last is None or last.answer is not None else last.question.problem

    async def record(self) -> Record:
        return await read_record(self.tx, self.build_id, self.secrets)

    async def plan(self) -> PlanEvent | None:
        data = await last_event_data(self.tx, self.build_id, PlanEvent.type)
        return None if data is None else PlanEvent.model_validate(data)


_CONTINUATIONS = {
    "max_tokens": prompt.CUT_OFF,
    "pause_turn": prompt.GO_ON,
    TEXT_CALL: prompt.TEXT_CALL,
    UNSTORABLE: prompt.UNSTORABLE,
}
"""The opening text by the previous turn's stop reason."""


@dataclass(frozen=True)
class UserMessage:
    """The texts of a turn's user message, and the rows that it delivers to the agent. Often there is nothing to say."""

    texts: Sequence[str]
    messages: Sequence[FounderMessage]
    restores: Sequence[tuple[Restore, str | None]]
    """Each with the HEAD that it left."""
    notices: Sequence[str] = ()
    """The texts of the `system` message that follows it."""
    secret_names: Sequence[str] | None = None
    """The names of secrets that the agent is told; None if it knows them."""

    @property
    def message_numbers(self) -> list[int]:
        """The numbers of the founder's messages in it."""
        return [message.number for message in self.messages]


async def compose_user_message(
    tx: Transaction, request: ThinkInput, start: turns.TurnStart, secrets: Sequence[str], *, system_notices: bool
) -> UserMessage:
    """Compose this turn's user message: its notes, the restores that were carried out, unread messages.

    With `system_notices`, notes of Cofounder's own words follow it in a message of their own.
    """
    build_id = uuid.UUID(request.build_id)
    messages = await steering.unread_messages(tx, build_id) if start.has_unread_messages else []
    new_restores = await restores.unreported_restores(tx, build_id) if start.has_unreported_restores else []
    texts = [prompt.OPENING] if request.turn == 1 else _continuation(start)
    notes = await _note_words(request.notes, _StoredFacts(tx, build_id, request.turn, request.allow_calls, secrets))
    secret_names = await names_of_build(tx, build_id) if start.has_new_secrets else None
    if secret_names is not None:
        notes.append(prompt.secrets_set(secret_names))
    notices = [words for words in notes if isinstance(words, str)] if system_notices else []
    texts += [_text_of(words) for words in notes if not (system_notices and isinstance(words, str))]
    texts += [prompt.restored(restores.describe_target(restore), commit) for restore, commit in new_restores]
    texts += await _founder_texts(tx, messages, secrets)
    if not texts and start.previous_outcome != "tool_use":
        # There has to be a user message, and no tool results stand in this one.
        texts, notices = notices or [prompt.NUDGE_EMPTY], []
    return UserMessage(texts, messages, new_restores, notices, secret_names)


async def store_user_message(tx: Transaction, build_id: uuid.UUID, turn: int, message: UserMessage) -> int:
    """Store the message, and note that its parts have reached the agent. Only a turn's first attempt does.

    Returns:
        The number of the founder's last message in it; 0 if it has none.
    """
    await turns.store_user_message(tx, build_id, turn, message.texts, message.notices)
    if message.secret_names is not None:
        await note_known(tx, build_id, message.secret_names)
    if message.messages or message.restores:
        await steering.mark_read(tx, message.messages, turn)
        await restores.mark_reported(tx, message.restores, turn)
    return message.messages[-1].number if message.messages else 0


def note_events(notes: Iterable[TurnNote], budget: BudgetFields) -> list[BuildEvent]:
    """What the feed tells the founder about the notes of a turn. `budget`: what a `BudgetEvent` says of the day."""
    rows = [NOTES[note] for note in notes]
    guards = [GuardEvent(text=row.guard) for row in rows if row.guard is not None]
    texts = dict.fromkeys(row.budget for row in rows if row.budget is not None)
    return [*guards, *(BudgetEvent(text=text, **budget) for text in texts)]


def _continuation(start: turns.TurnStart) -> list[str]:
    if start.previous_outcome == REFUSAL:
        return [prompt.declined(describe_refusal(start.previous_details))]
    text = _CONTINUATIONS.get(start.previous_outcome or "")
    return [text] if text is not None else []


async def _note_words(notes: Sequence[TurnNote], facts: _StoredFacts) -> list[Words]:
    all_words: list[Words] = []
    for note in dict.fromkeys(notes):
        row = NOTES[note]
        words = row.text if isinstance(row.text, str) else await row.text(facts)
        if words is not None:
            all_words.append(words)
    return all_words


def _text_of(words: Words) -> str:
    return words.text if isinstance(words, Quoted) else words


async def _founder_texts(tx: Transaction, messages: Sequence[FounderMessage], secrets: Sequence[str]) -> list[str]:
    questions = await steering.questions_of(tx, messages) if messages else {}
    texts: list[str] = []
    for message in messages:
        text = displayable(message.text, secrets)
        asked = questions.get(message.question_id) if message.question_id else None
        if asked is None:
            texts.append(prompt.founder_message(text))
        elif asked.default_option is None:
            texts.append(prompt.founder_answer(asked.problem, text))
        else:
            texts.append(prompt.answer_to_agent(asked.problem, asked.default_option, text))
    return texts
