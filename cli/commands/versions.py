"""`cofounder versions`: what the ready builds of a project have made."""

import uuid
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.connection import with_api
from cli.parameters import ApiUrl, AsJson, User

if TYPE_CHECKING:
    from rich.console import Console

    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer()

Json = dict[str, Any]


@app.command(epilog="Example: cofounder versions 9b2f0c1e-6a54-4a0b-9d5e-2f1f8f0f6c11")
def versions(
    project: Annotated[uuid.UUID, typer.Argument(metavar="PROJECT", help="The project's id.")],
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """List the versions of a project, the newest first.

    To go on from an earlier one, or to roll back to it: cofounder build --from BUILD.
    """

    async def run(api: "ApiClient", output: "Output") -> None:
        listed: list[Json] = []
        before = None
        while True:
            page = await api.list_versions(str(project), before)
            listed += page["versions"]
            before = page["next_before"]
            if before is None:
                break
        if not listed and not output.as_json:
            output.note("No version yet. The first one appears when a build passes its checks.")
        output.print_result({"project_id": str(project), "versions": listed}, lambda console: _print(console, listed))

    with_api(run, as_json=as_json, api_url=api_url, user=user)


def _print(console: "Console", listed: list[Json]) -> None:
    from cli.build_rows import start_text
    from cli.output import print_table, table_time

    rows = [
        [
            str(each["version"]),
            each["build_id"],
            table_time(console, each["ready_at"]),
            "" if each["tests"] is None else str(each["tests"]),
            start_text(each["started_from"]) if each["started_from"] else "nothing",
            each["goal"],
        ]
        for each in listed
    ]
    if rows:
        print_table(console, ["version", "build", "ready", "tests", "began with", "goal"], rows)
