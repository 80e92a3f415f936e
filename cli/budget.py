"""A founder's budget as founders see it: how much of today's allowance is used, and in which colour."""

from typing import Any

from rich.text import Text

from cli.output import moment

_COLOURS = ("green", "yellow", "red")


def budget_text(percent: int | None, level: str | None) -> Text:
    """Today's share of the allowance that is used, in the colour of its level."""
    if percent is None:
        return Text("unlimited")
    return Text(f"{percent} %", level if level in _COLOURS else "")


def budget_row(budget: dict[str, Any]) -> Text:
    """The budget of a build as the API tells it, in a line."""
    told = budget_text(budget["percent"], budget.get("level"))
    if budget["percent"] is None:
        return told
    return told.append(f" of today's allowance used, refreshes at {moment(budget['refreshes_at'])}", "default")
