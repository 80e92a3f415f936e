"""Notes: what Cofounder tells the agent before its next turn, in addition to tool results.

They go into a message of their own, with the role `system`, if the model takes one: text behind tool results may be
anyone's, and models learn to resist it. For the same reason a note that quotes others must be `Quoted`.

A new note is a member of `TurnNote` and a row of `NOTES`, both here; a workflow appends the member to
`LoopState.notes`. If its text depends on something new, `Facts` gets a method, which
`activities/turn/user_message.py` implements with a query.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from domain import prompt, summary
from domain.events import PlanEvent, ResumedEvent


class TurnNote(StrEnum):
    """Names a note. The values are in the histories of running builds."""

    STEER_REPEATING = "steer_repeating"
    LAST_TURN = "last_turn"
    CONTINUE_AFTER_CAP = "continue_after_cap"
    GATE_FINDINGS = "gate_findings"
    RESUMED = "resumed"
    WIND_DOWN = "wind_down"
    WIND_DOWN_OVER = "wind_down_over"
    HANDOFF = "handoff"
    ASKED = "asked"
    COMPACTED = "compacted"
    SPEAK = "speak"
    OPEN_ITEMS = "open_items"
    HISTORY_OVERWRITTEN = "history_overwritten"


class Facts(Protocol):
    """What the text of a note may depend on. Each fact is read only if a note asks for it."""

    @property
    def allow_calls(self) -> int:
        """How many more tool calls the agent has, with `CONTINUE_AFTER_CAP`."""

    async def findings(self) -> Sequence[str]:
        """The findings of the last check of the product."""

    async def resumes(self) -> Sequence[ResumedEvent]:
        """The build's resumes since the last turn."""

    async def handoff_note(self) -> str | None:
        """The text with which the agent ended the last turn, if it ended it itself."""

    async def unanswered_problem(self) -> str | None:
        """The problem that the founder was asked about last, if they have not answered."""

    async def record(self) -> summary.Record:
        """What the rows of the build say of its conversation."""

    async def plan(self) -> PlanEvent | None:
        """The agent's plan as it was read last."""


@dataclass(frozen=True)
class Quoted:
    """A note that repeats what the founder, the agent or the sandbox said. It stays in the user message: with the role
    `system`, a sentence from anywhere would have Cofounder's authority."""

    text: str


Words = str | Quoted
"""What the agent reads."""


@dataclass(frozen=True)
class Note:
    """A row of `NOTES`."""

    text: str | Callable[[Facts], Awaitable[Words | None]]
    """What the agent reads, or the function that returns it; None if there is nothing to say."""
    guard: str | None = None
    """What the founder reads about it, as a GUARD event."""
    budget: str | None = None
    """What the founder reads about it, as a BUDGET event."""


async def _continue_after_cap(facts: Facts) -> str:
    return prompt.continue_after_cap(facts.allow_calls)


async def _gate_findings(facts: Facts) -> Quoted:
    return Quoted(prompt.gate_findings(await facts.findings()))


async def _resumed(facts: Facts) -> Words | None:
    resumes = await facts.resumes()
    if not resumes:
        return None
    changes = [change for resume in resumes for change in resume.changes]
    text = prompt.resumed(resumes[-1].reason, changes)
    return Quoted(text) if changes else text  # the list of changes was kept in the sandbox


async def _handoff(facts: Facts) -> Words:
    note = await facts.handoff_note()
    return Quoted(prompt.handoff(note)) if note else prompt.NO_HANDOFF


async def _unanswered(facts: Facts) -> Quoted | None:
    problem = await facts.unanswered_problem()
    return None if problem is None else Quoted(prompt.no_answer(problem))


async def _compacted(facts: Facts) -> Quoted:
    return Quoted(summary.compacted(await facts.record()))


async def _open_items(facts: Facts) -> Quoted | None:
    plan = await facts.plan()
    return None if plan is None else Quoted(prompt.open_stories(plan.stories, plan.open, is_empty=not plan.open))


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
    TurnNote.COMPACTED: Note(_compacted),
    TurnNote.SPEAK: Note(prompt.SPEAK),
    TurnNote.HISTORY_OVERWRITTEN: Note(prompt.HISTORY_OVERWRITTEN),
    TurnNote.OPEN_ITEMS: Note(
        _open_items,
        guard="The agent stopped before its plan was done. Cofounder asked it to go on.",
    ),
}
