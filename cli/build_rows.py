"""Prints a build as rows, for `show`, `build` and `watch`."""

from typing import Any

from rich.console import Console
from rich.text import Text

from cli.feed_state import describe_model
from cli.output import budget_row, local_time, print_rows
from domain.budget import dollars
from domain.build_options import BuildOptions

_STYLES = {
    "ready": "green",
    "failed": "red",
    "cancelled": "red",
    "sleeping": "yellow",
    "waiting": "yellow",
    "needs_input": "bold yellow",
}

Json = dict[str, Any]


def print_build(console: Console, build: Json) -> None:
    """Print a build as rows, without the values that it does not have yet."""
    budget = build.get("budget")
    rows: dict[str, Any] = {
        "build": build["id"],
        "project": build["project_id"],
        "goal": build["goal"],
        **_options(build),
        "started by": build.get("started_by"),
        "began with": start_text(build["started_from"]) if build.get("started_from") else None,
        "status": status_text(build),
        "why": build["reason"],
        "wakes at": build["wakes_at"] and local_time(build["wakes_at"]),
        "model": describe_model(build["model_label"]) if build["model_label"] else None,
        "budget": budget_row(budget) if budget else None,
        "cost": _cost(build),
        "sandbox": f"{build['sandbox_hours']:g} hours today" if build.get("sandbox_hours") else None,
        "phases": str(build["phases_completed"]),
        "version": build["build_version"] and str(build["build_version"]),
        "preview": build["preview_url"],
        "settings": _changed_settings(build),
        "began": local_time(build["created_at"]),
        "ended": build["closed_at"] and local_time(build["closed_at"]),
    }
    print_rows(console, ((name, value) for name, value in rows.items() if value is not None))
    if judgement := build.get("judgement"):
        print_rows(console, _judgement_rows(judgement))
    if question := build.get("question"):
        print_rows(console, _question_rows(build["id"], question))
    for asked in build.get("agent_questions") or ():
        print_rows(console, _agent_question_rows(build["id"], asked))


def start_text(start: Json) -> str:
    """The snapshot with which a build began, in words."""
    return f"version {start['version']}" if start["version"] else f"snapshot {start['snapshot']} of {start['build_id']}"


def _cost(build: Json) -> str | None:
    """What the build has cost, and what of it is the judge's; nothing for founders."""
    if build["cost_microdollars"] is None:
        return None
    of_judge = build.get("judge_cost_microdollars")
    judge = f" ({dollars(of_judge)} of it for the judge)" if of_judge else ""
    return f"{dollars(build['cost_microdollars'])}{judge}"


def _judgement_rows(judgement: Json) -> list[tuple[str, str]]:
    """What the judge of the last gate has found, or why it was not asked."""
    gate = f"gate {judgement['gate']}"
    if judgement["not_judged"] is not None:
        return [("judge", f"{gate}: not judged: {judgement['not_judged']}")]
    by = f"{gate}, by {judgement['model']}"
    if not judgement["findings"]:
        return [("judge", f"{by}: nothing that was asked for is missing")]
    what = "went back to the agent" if judgement["returned"] else "are left in the product"
    return [("judge", f"{by}: its findings {what}"), *(("finds", text) for text in judgement["findings"])]


def _changed_settings(build: Json) -> str | None:
    changes: dict[str, Any] = build.get("settings", {})
    return ", ".join(f"{name.upper()}={'' if value is None else value}" for name, value in changes.items()) or None


def _options(build: Json) -> dict[str, str]:
    """The options of the build that are not at their default."""
    values = {name: (build.get(name), field.default) for name, field in BuildOptions.model_fields.items()}
    return {name.replace("_", " "): str(value) for name, (value, default) in values.items() if value != default}


def _question_rows(build_id: str, question: Json) -> list[tuple[str, str]]:
    """The question as rows, with the commands that answer it."""
    rows = [("asks", question["problem"]), *(("tried", tried) for tried in question["tried"])]
    options = [(f"  answer {number}", option) for number, option in enumerate(question["options"], 1)]
    if question["answer"] is not None:
        return [*rows, ("answered", question["answer"])]
    return [*rows, *options, ("to answer", f'cofounder answer {build_id} 1   or   "…" in your own words')]


def _agent_question_rows(build_id: str, question: Json) -> list[tuple[str, str]]:
    """A question that the agent does not wait for as rows, with the command that answers it."""
    options = [(f"  answer {number}", option) for number, option in enumerate(question["options"], 1)]
    command = f"cofounder answer {build_id} 1 --question {question['id'][:8]}"
    until = ("until then", question["default"])
    return [("asks", question["problem"]), *options, until, ("to answer", f'{command}   or   "…" in your own words')]


def status_text(build: Json) -> Text:
    """The status in its colour, with who it waits for."""
    waits_for = build["waiting_for"] or build.get("dependency")
    waits = f" ({waits_for})" if waits_for else ""
    return Text(f"{build['status']}{waits}", _STYLES.get(build["status"], "cyan"))
