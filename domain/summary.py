"""How a conversation goes on from a summary: what the model is asked to write, and what Cofounder adds from its rows.

A summary of the model's own can lose what the founder said, so their messages follow it word for word. Where there is
no summary, the rows alone begin the new conversation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from domain.prompt import founder_message, secrets_set
from domain.tool_output import bound

FOUNDER_CHARACTERS = 20_000
"""The founder's messages are repeated up to this length, the newest first."""

COMMITS = 60
"""The last commits that are named."""

TITLE_CHARACTERS = 200
WORDS_CHARACTERS = 6000
RESULTS_CHARACTERS = 12_000
PENDING_CHARACTERS = 12_000
"""Longest parts of an opening that is made of rows."""

INSTRUCTIONS = """\
Write a summary with which you can go on with this work without the conversation. Do not call tools; respond with the
summary only. Say:
- the goal, and how far it is reached: what is done and committed, what you were doing, what comes next;
- the items of PLAN.md that are still open;
- decisions with their reasons, and what the founder asked for, in their words;
- a map of the files: path and purpose, one line each;
- what is broken, with the exact text of the errors, and what you have tried;
- commands that work: install, check, start, and processes that run."""
"""The vendor's parameter `compaction.instructions`. Shorter than the tokens that `money` adds to a request's size."""


@dataclass(frozen=True)
class Record:
    """What the rows of a build say of its conversation."""

    founder_messages: Sequence[str]
    """All that an agent has read, oldest first."""
    commits: Sequence[str]
    """Titles, oldest first."""
    open_items: Sequence[str] = ()
    """Of its plan, as it was read last."""
    secret_names: Sequence[str] = ()
    """Of the product's secrets."""


@dataclass(frozen=True)
class LastTurn:
    """How the conversation ended."""

    words: str
    """What the agent said last."""
    results: Sequence[tuple[str, str]]
    """Its last tool calls, each with its result."""
    pending: Sequence[str]
    """What Cofounder and the founder say to it now."""


def compacted(record: Record) -> str:
    """Tell the agent that its conversation begins with its own summary now, and add what a summary may have lost."""
    return "\n\n".join(
        (
            "Your conversation was summed up, because it had become long; your last turns follow the summary as they "
            "were. PLAN.md and NOTES.md are in the workspace: read them, and look at git log, before you rely on the "
            "summary alone.",
            *_sections(record),
            "Go on with the work.",
        )
    )


def opening(record: Record, last: LastTurn, *, for_people: bool = False) -> str:
    """Begin a conversation that goes on from another one, of which the model has seen nothing.

    With `for_people`, return what the founder reads of it: their own messages are only referred to.
    """
    parts = [
        "You are in the middle of this work. The conversation so far had become too long to be sent again, so it "
        "begins again here, with what Cofounder has kept. The workspace is as you left it: PLAN.md and NOTES.md are in "
        "the workspace, if you have written them. Read them, and look at git log and git status, before you go on.",
        *_sections(record, for_people=for_people),
    ]
    if last.words:
        parts.append(f"# What you said last\n{bound(last.words, WORDS_CHARACTERS)}")
    if last.results:
        each = RESULTS_CHARACTERS // len(last.results)
        results = "\n\n".join(f"## {call}\n{bound(text, each)}" for call, text in last.results)
        parts.append(f"# Your last tool calls and their results\n{results}")
    if last.pending and not for_people:
        parts.append(f"# What you are told now\n{bound(chr(10).join(last.pending), PENDING_CHARACTERS)}")
    return "\n\n".join((*parts, "Go on with the work."))


def _sections(record: Record, *, for_people: bool = False) -> list[str]:
    sections = []
    messages = _newest(record.founder_messages)
    if messages and for_people:
        count = f"{len(messages)} messages" if len(messages) > 1 else "message"
        sections.append(f"# The founder's messages so far\n(Your last {count}, word for word.)")
    elif messages:
        quoted = "\n".join(map(founder_message, messages))
        sections.append(f"# The founder's messages so far, word for word; you have read them\n{quoted}")
    if record.commits:
        titles = "\n".join(f"- {title[:TITLE_CHARACTERS]}" for title in record.commits[-COMMITS:])
        sections.append(f"# Your commits so far, the last at the end\n{titles}")
    if record.secret_names:
        sections.append(f"# Secrets\n{secrets_set(record.secret_names)}")
    if record.open_items:
        items = "\n".join(f"- {item[:TITLE_CHARACTERS]}" for item in record.open_items[:COMMITS])
        sections.append(f"# Open items of PLAN.md, when it was read last\n{items}")
    return sections


def _newest(messages: Sequence[str]) -> list[str]:
    """The newest messages that fit, oldest first; the oldest of them may be cut."""
    kept: list[str] = []
    left = FOUNDER_CHARACTERS
    for message in reversed(messages):
        if left <= 0:
            break
        kept.append(message if len(message) <= left else f"{message[:left]}…")
        left -= len(message)
    return kept[::-1]
