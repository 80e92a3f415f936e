"""`cofounder ops reaper …`: what the reaper would do, and its pause."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.commands.ops import as_operator
from cli.parameters import ApiUrl, AsJson

if TYPE_CHECKING:
    from rich.console import Console

    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer(no_args_is_help=True, help="The reaper, which repairs what crashes leave behind.")

Json = dict[str, Any]


@app.command(epilog="Example: cofounder ops reaper show")
def show(as_json: AsJson = False, api_url: ApiUrl = None) -> None:
    """Show whether the reaper is paused, when it ran last, and what to look at."""

    async def run(api: "ApiClient", output: "Output") -> None:
        found = await api.read_ops("reaper")
        output.print_result(found, lambda console: _print_reaper(console, found))

    as_operator(run, as_json=as_json, api_url=api_url)


@app.command(epilog="Example: cofounder ops reaper plan")
def plan(as_json: AsJson = False, api_url: ApiUrl = None) -> None:
    """Show what the reaper would close, end, delete and repeat now, and why. Nothing is changed."""

    async def run(api: "ApiClient", output: "Output") -> None:
        found = await api.read_ops("reaper/plan")
        output.print_result(found, lambda console: _print_plan(console, found["steps"]))

    as_operator(run, as_json=as_json, api_url=api_url)


@app.command(epilog="Example: cofounder ops reaper pause --reason 'the sandbox service lists too little'")
def pause(
    reason: Annotated[str, typer.Option("--reason", help="Why, for other operators.")],
    as_json: AsJson = False,
    api_url: ApiUrl = None,
) -> None:
    """Let the reaper start no more runs until it is resumed, however many workers start."""

    async def run(api: "ApiClient", output: "Output") -> None:
        found = await api.write_ops("POST", "reaper/pause", {"reason": reason})
        output.print_result(found, "The reaper is paused. To go on: cofounder ops reaper resume")

    as_operator(run, as_json=as_json, api_url=api_url)


@app.command(epilog="Example: cofounder ops reaper resume")
def resume(as_json: AsJson = False, api_url: ApiUrl = None) -> None:
    """Let the reaper run again."""

    async def run(api: "ApiClient", output: "Output") -> None:
        found = await api.write_ops("POST", "reaper/resume")
        output.print_result(found, "The reaper runs again.")

    as_operator(run, as_json=as_json, api_url=api_url)


def _print_reaper(console: "Console", found: Json) -> None:
    from cli.output import local_time, print_rows

    states = {None: "unknown: no schedule, or Temporal does not answer", True: "paused", False: "runs"}
    rows = [
        ("reaper", states[found["paused"]]),
        ("note", found["note"] or ""),
        ("last run", local_time(found["last_run_at"]) if found["last_run_at"] else "none"),
        *(("alert", f"{each['step']}: {each['alert']}") for each in found["steps"] if each["alert"]),
    ]
    print_rows(console, rows)


def _print_plan(console: "Console", steps: list[Json]) -> None:
    from cli.output import print_table

    for step in steps:
        what = step["problem"] or (f"{step['count']} things to do" if step["count"] else "nothing to do")
        console.print(f"{step['step']}: {what}", markup=False)
        if step["acts"]:
            print_table(console, ("act", "what", "why"), [(a["act"], a["id"], a["why"]) for a in step["acts"]])
