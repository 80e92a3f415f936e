"""Prints turns and tool calls, for `show` and `logs`."""

import json
from datetime import datetime
from typing import Any

from rich.console import Console

from cli.output import local_time, print_rows
from cli.printable_text import printable_lines
from domain.budget import dollars

Json = dict[str, Any]


def print_turn(console: Console, build_id: str, turn: Json) -> None:
    """Print what the agent has said in a turn, its tool calls, and how to see one of them."""
    tokens = turn["tokens"]
    used = f"{tokens['output']} written; read {tokens['input'] + tokens['cache_write']}, {tokens['cache_read']} cached"
    rows = {
        "turn": str(turn["number"]),
        "began": local_time(turn["started_at"]),
        "ended with": turn["outcome"] or "no answer yet",
        "tokens": used,
        "cost": None if turn["cost_microdollars"] is None else dollars(turn["cost_microdollars"]),
    }
    print_rows(console, ((name, value) for name, value in rows.items() if value is not None))
    if turn["text"]:
        console.print(printable_lines(turn["text"]))
    for call in turn["calls"]:
        print_rows(console, [("call", call_line(call))])
    if turn["calls"]:
        print_rows(console, [("to see one", f"cofounder logs {build_id} --call {turn['calls'][0]['tool_use_id']}")])


def print_call(console: Console, call: Json) -> None:
    """Print a tool call with its input and its result."""
    rows = [("call", call["tool_use_id"]), ("turn", str(call["turn"])), ("tool", call["name"]), ("state", _state(call))]
    print_rows(console, rows)
    for name, value in call["input"].items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        console.print(f"{printable_lines(name)}: {printable_lines(text)}")
    for part in call["result"] or ():
        console.print(printable_lines(part["text"]) if part["type"] == "text" else f"image {part['path']}")


def call_line(call: Json) -> str:
    """A tool call on one line."""
    return f"{call['tool_use_id']}  {_state(call)}  {call['name']}: {call['summary']}"


def _state(call: Json) -> str:
    if call["lost"]:
        return "outcome unknown"
    if call["state"] != "done":
        return "waits" if call["state"] == "requested" else "runs"
    result = "failed" if call["is_error"] else "done"
    if call["started_at"] is None or call["ended_at"] is None:
        return result
    seconds = datetime.fromisoformat(call["ended_at"]) - datetime.fromisoformat(call["started_at"])
    return f"{result} in {seconds.total_seconds():.1f} s"
