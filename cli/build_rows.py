"""A build in rows, for `show`, `build` and `watch`."""

from typing import Any

from rich.console import Console
from rich.text import Text

from cli.feed_state import describe_model
from cli.output import budget_row, dollars, local_time, print_rows

_STYLES = {"ready": "green", "failed": "red", "cancelled": "red", "sleeping": "yellow", "needs_input": "bold yellow"}

Json = dict[str, Any]


def print_build(console: Console, found: Json) -> None:
    """A build in rows; what it has not yet is left out."""
    budget = found.get("budget")
    rows: dict[str, Any] = {
        "build": found["id"],
        "project": found["project_id"],
        "goal": found["goal"],
        "status": status_text(found),
        "why": found["reason"],
        "wakes at": found["wakes_at"] and local_time(found["wakes_at"]),
        "model": describe_model(found["model_label"]) if found["model_label"] else None,
        "budget": budget_row(budget) if budget else None,
        "cost": None if found["cost_microdollars"] is None else dollars(found["cost_microdollars"]),
        "phases": str(found["phases_completed"]),
        "version": found["build_version"] and str(found["build_version"]),
        "preview": found["preview_url"],
        "began": local_time(found["created_at"]),
        "ended": found["closed_at"] and local_time(found["closed_at"]),
    }
    print_rows(console, ((name, value) for name, value in rows.items() if value is not None))
    if question := found.get("question"):
        print_rows(console, _question_rows(found["id"], question))


def _question_rows(build_id: str, question: Json) -> list[tuple[str, str]]:
    """The question in rows, with what to type."""
    asked = [("asks", question["problem"]), *(("tried", tried) for tried in question["tried"])]
    options = [(f"  answer {number}", option) for number, option in enumerate(question["options"], 1)]
    if question["answer"] is not None:
        return [*asked, ("answered", question["answer"])]
    return [*asked, *options, ("to answer", f'cofounder answer {build_id} 1   or   "…" in your own words')]


def status_text(build: Json) -> Text:
    waits = f" ({build['waiting_for']})" if build["waiting_for"] else ""
    return Text(f"{build['status']}{waits}", _STYLES.get(build["status"], "cyan"))
