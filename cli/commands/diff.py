"""`cofounder diff`: what a build or one of its phases has changed."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.connection import resolve_build_id, with_api
from cli.parameters import ApiUrl, AsJson, BuildId, User

if TYPE_CHECKING:
    from rich.console import Console

    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer()


@app.command(epilog="Example: cofounder diff last --phase 2")
def diff(
    build_id: BuildId,
    phase: Annotated[
        int | None,
        typer.Option("--phase", metavar="N", min=1, max=2**31 - 1, help="Only what this phase has changed."),
    ] = None,
    phases: Annotated[bool, typer.Option("--phases", help="List the phases, and how much each has changed.")] = False,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Show what a build has changed, or one of its phases, as a unified diff."""
    if phases and phase is not None:
        raise typer.BadParameter("Use either --phase or --phases.")

    async def run(api: "ApiClient", output: "Output") -> None:
        found_id = await resolve_build_id(api, build_id)
        if phases:
            document = await api.list_phases(found_id)
            if not document["phases"] and not output.as_json:
                output.note("No phase has ended yet. Each ends with a commit of the agent.")
                return
            output.print_result(document, lambda console: _print_phases(console, document["phases"]))
            return
        document = await api.read_diff(found_id, phase)
        output.print_result(document, lambda console: _print_diff(console, document))

    with_api(run, as_json=as_json, api_url=api_url, user=user)


def _print_phases(console: "Console", phases: list[dict[str, Any]]) -> None:
    from cli.output import print_table

    rows = [
        (str(each["number"]), (each["commit"] or "")[:7], f"{each['seconds']:.0f} s", _counts(each), each["title"])
        for each in phases
    ]
    print_table(console, ("phase", "commit", "took", "changed", "title"), rows)


def _counts(changed: dict[str, Any]) -> str:
    if changed["files"] is None:
        return "not stored"
    files = "1 file" if changed["files"] == 1 else f"{changed['files']} files"
    return f"+{changed['additions']} -{changed['deletions']} in {files}"


def _print_diff(console: "Console", document: dict[str, Any]) -> None:
    from cli.output import print_rows
    from cli.printable_text import printable_lines

    print_rows(console, [("changed", _counts(document))])
    for change in document["changes"]:
        if change["patch"] is not None:
            console.print(printable_lines(change["patch"]))
        if change["binary"]:
            print_rows(console, [(change["status"], f"{change['path']} (binary)")])
        elif change["truncated"]:
            print_rows(console, [("cut", f"{change['path']}: +{change['additions']} -{change['deletions']}")])
    if left_out := document["files"] - len(document["changes"]):
        print_rows(console, [("left out", f"{left_out} more files")])
