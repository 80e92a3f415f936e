"""A founder's budget as founders see it: how much of today's allowance is used, and in which colour."""

from typing import Any

from rich.text import Text

from console.screen import moment

_GREEN_TO, _YELLOW_TO = 60, 90


def budget_text(percent: int | None, level: str | None) -> Text:
    """Today's share of the allowance that is used, in the colour of its level."""
    if percent is None:
        return Text("unlimited")
    colour = level or ("green" if percent <= _GREEN_TO else "yellow" if percent <= _YELLOW_TO else "red")
    return Text(f"{percent} %", colour if colour in ("green", "yellow", "red") else "")


def budget_row(budget: dict[str, Any]) -> Text:
    """The budget of a build as the API tells it, in a line."""
    told = budget_text(budget["percent"], budget.get("level"))
    if budget["percent"] is None:
        return told
    return told.append(f" of today's allowance used, refreshes at {moment(budget['refreshes_at'])}", "default")
