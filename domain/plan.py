"""`PLAN.md`: the agent's checklist of user stories, from which Cofounder reads what is still open.

A story is a line `- [ ] text` (open) or `- [x] text` (done), as in GitHub's task lists; `*` and `1.` begin one, too.
"""

import re
from dataclasses import dataclass

PLAN_FILE = "PLAN.md"

MAX_PLAN_BYTES = 256_000
"""A longer plan is read only up to here."""

_ITEM = re.compile(r"^ {0,12}(?:[-*+]|\d{1,4}[.)])\s+\[(?P<mark>[ xX])\]\s+(?P<text>\S.*)$")
_FENCE = re.compile(r"^\s{0,3}(?:```|~~~)")
_BLOCKER = re.compile(r"^\W{0,4}BLOCKED\W{0,4}:\s*(?P<what>\S.*)$", re.MULTILINE)

ITEM_CHARACTERS = 200
"""A story is quoted up to this length."""

STORIES_SHOWN = 12
"""Name at most this many open stories at once."""

MAX_REMINDERS = 3
"""Let the agent go on this many times without progress in its plan; then the gate decides."""


@dataclass(frozen=True)
class Plan:
    """The stories of a plan, in order."""

    open: tuple[str, ...]
    done: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether it has no story at all."""
        return not self.open and not self.done


def parse_plan(text: str) -> Plan:
    """Read the stories of a plan. Checkboxes in fenced code are not stories."""
    stories: dict[bool, list[str]] = {True: [], False: []}
    fenced = False
    for line in text.splitlines():
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced and (match := _ITEM.match(line)):
            stories[match["mark"] == " "].append(match["text"].strip()[:ITEM_CHARACTERS])
    return Plan(open=tuple(stories[True]), done=tuple(stories[False]))


def named_blocker(text: str) -> str | None:
    """Return what the agent's last message names as its blockers, each on a line `BLOCKED: what`; None if nothing."""
    return "; ".join(match["what"].strip() for match in _BLOCKER.finditer(text)) or None
