"""The user message of a turn: everything that Cofounder and the founder say to the agent, apart from tool results.

A note is what Cofounder has to say. `NOTES` is the only place that knows a note's text and what the feed tells the
founder about it; a new note is a member of `TurnNote` and a row of this table.
"""

import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from db import restores, steering, turns
from db.models import FounderMessage, Restore
from db.transaction import Transaction
from domain import prompt
from domain.events import BudgetEvent, GuardEvent, NewEvent
from domain.payloads import ThinkInput, TurnNote
from domain.tool_output import displayable


@dataclass(frozen=True)
class NoteContext:
    """What the text of a note may depend on."""

    tx: Transaction
    build_id: uuid.UUID
    turn: int
    allow_calls: int
    """How many more tool calls the agent has, with `CONTINUE_AFTER_CAP`."""


@dataclass(frozen=True)
class Note:
    """A row of `NOTES`."""

    text: str | Callable[[NoteContext], Awaitable[str | None]]
    """What the agent reads, or the query for it. A query that returns None has nothing to say."""
    guard: str | None = None
    """What the founder reads about it, as a GUARD event."""
    budget: str | None = None
    """What the founder reads about it, as a BUDGET event."""


async def _continue_after_cap(context: NoteContext) -> str:
    return prompt.continue_after_cap(context.allow_calls)


async def _gate_findings(context: NoteContext) -> str:
    return prompt.gate_findings(await turns.latest_findings(context.tx.session, context.build_id))


async def _resumed(context: NoteContext) -> str | None:
    resumes = await turns.resumes_since_last_turn(context.tx.session, context.build_id, context.turn)
    if not resumes:
        return None
    changes = [change for resume in resumes for change in resume.get("changes", [])]
    return prompt.resumed(resumes[-1].get("reason", ""), changes)


async def _handoff(context: NoteContext) -> str:
    note = await turns.handoff_note(context.tx.session, context.build_id, context.turn)
    return prompt.handoff(note) if note else prompt.NO_HANDOFF


async def _unanswered(context: NoteContext) -> str | None:
    last = await steering.find_question(context.tx.session, context.build_id)
    return None if last is None or last.answer is not None else prompt.no_answer(last.question.problem)


NOTES: Mapping[TurnNote, Note] = {
    TurnNote.STEER_REPEATING: Note(
        prompt.STEER_REPEATING,
        guard="The agent keeps making the same call. Cofounder asked it to try something different.",
    ),
    TurnNote.LAST_TURN: Note(
        prompt.LAST_TURN,
        guard="This build has used all its tool calls. The agent has one more turn, to commit.",
    ),
    TurnNote.CONTINUE_AFTER_CAP: Note(_continue_after_cap),
    TurnNote.GATE_FINDINGS: Note(_gate_findings),
    TurnNote.RESUMED: Note(_resumed),
    TurnNote.WIND_DOWN: Note(
        prompt.WIND_DOWN,
        budget="Today's budget is running low. Cofounder asked the agent to finish, commit and leave a note.",
    ),
    TurnNote.WIND_DOWN_OVER: Note(prompt.WIND_DOWN_OVER),
    TurnNote.HANDOFF: Note(_handoff),
    TurnNote.ASKED: Note(_unanswered),
}

_CONTINUATIONS = {"max_tokens": prompt.CUT_OFF, "pause_turn": prompt.GO_ON}
"""The opening text by the previous turn's stop reason."""


@dataclass(frozen=True)
class UserMessage:
    """The texts of a turn's user message, and the rows that it delivers to the agent. Often there is nothing to say."""

    texts: Sequence[str]
    messages: Sequence[FounderMessage]
    restores: Sequence[tuple[Restore, str | None]]
    """Each with the HEAD that it left."""

    @property
    def message_numbers(self) -> list[int]:
        """The numbers of the founder's messages in it."""
        return [message.number for message in self.messages]


async def compose_user_message(
    tx: Transaction, request: ThinkInput, start: turns.TurnStart, secrets: Sequence[str]
) -> UserMessage:
    """Compose this turn's user message: its notes, the restores that were carried out, unread messages."""
    build_id = uuid.UUID(request.build_id)
    messages = await steering.unread_messages(tx.session, build_id) if start.has_unread_messages else []
    new_restores = await restores.unreported_restores(tx.session, build_id) if start.has_unreported_restores else []
    texts = [prompt.OPENING] if request.turn == 1 else _continuation(start.previous_outcome)
    texts += await _note_texts(request.notes, NoteContext(tx, build_id, request.turn, request.allow_calls))
    texts += [prompt.restored(restores.describe_target(restore), commit) for restore, commit in new_restores]
    texts += await _founder_texts(tx, messages, secrets)
    if not texts and start.previous_outcome != "tool_use":
        # A request has to end with a user message, and no tool results stand in this one.
        texts.append(prompt.NUDGE_EMPTY)
    return UserMessage(texts, messages, new_restores)


async def store_user_message(tx: Transaction, build_id: uuid.UUID, turn: int, message: UserMessage) -> int:
    """Store the message, and note that its parts have reached the agent. Only a turn's first attempt does.

    Returns:
        The number of the founder's last message in it; 0 if it has none.
    """
    if not message.texts:
        return 0
    await turns.store_user_message(tx, build_id, turn, message.texts)
    if message.messages or message.restores:
        await steering.mark_read(tx.session, message.messages, turn)
        await restores.mark_reported(tx.session, message.restores, turn)
    return message.messages[-1].number if message.messages else 0


def note_events(notes: Iterable[TurnNote], turn: int, budget: Mapping[str, object]) -> list[NewEvent]:
    """What the feed tells the founder about the notes of a turn. `budget`: what a BUDGET event says of the day."""
    rows = [NOTES[note] for note in notes]
    guards = [NewEvent(GuardEvent(text=row.guard), turn) for row in rows if row.guard is not None]
    texts = dict.fromkeys(row.budget for row in rows if row.budget is not None)
    return [*guards, *(NewEvent(BudgetEvent.model_validate({"text": text, **budget}), turn) for text in texts)]


def _continuation(previous_outcome: str | None) -> list[str]:
    text = _CONTINUATIONS.get(previous_outcome or "")
    return [text] if text is not None else []


async def _note_texts(notes: Sequence[TurnNote], context: NoteContext) -> list[str]:
    texts: list[str] = []
    for note in dict.fromkeys(notes):
        row = NOTES[note]
        text = row.text if isinstance(row.text, str) else await row.text(context)
        if text is not None:
            texts.append(text)
    return texts


async def _founder_texts(tx: Transaction, messages: Sequence[FounderMessage], secrets: Sequence[str]) -> list[str]:
    problems = await steering.problems_of(tx.session, messages) if messages else {}
    texts: list[str] = []
    for message in messages:
        text = displayable(message.text, secrets)
        problem = problems.get(message.question_id) if message.question_id else None
        texts.append(prompt.founder_message(text) if problem is None else prompt.founder_answer(problem, text))
    return texts
