"""`cofounder restore`: put a workspace back."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import resolve_build_id, with_api
from cli.parameters import LAST, ApiUrl, AsJson, BuildId, User

if TYPE_CHECKING:
    from rich.console import Console

    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer()


@app.command(epilog="Example: cofounder restore last --snapshot 3\n\nExample: cofounder restore --commit 4f9d2ac1")
def restore(
    build_id: BuildId = LAST,
    snapshot: Annotated[
        int | None, typer.Option("--snapshot", metavar="N", min=1, help="Back to a snapshot that is kept.")
    ] = None,
    commit: Annotated[
        str | None, typer.Option("--commit", metavar="SHA", help="Back to a commit that ended a phase.")
    ] = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Put the workspace of an open build back, between two turns. Without an option: list the snapshots that are kept.

    What is there now is kept as a snapshot, and the agent is told. An ended build stays as it is: a new one of its
    project goes on from the last ready version.
    """
    if snapshot is not None and commit is not None:
        raise typer.BadParameter("Give --snapshot or --commit, not both.")

    async def run(api: "ApiClient", output: "Output") -> None:
        found_id = await resolve_build_id(api, build_id)
        if snapshot is None and commit is None:
            kept = await api.list_snapshots(found_id)
            output.print_result(kept, lambda console: _print_snapshots(console, kept["snapshots"]))
            return
        target = {"snapshot": snapshot} if commit is None else {"commit": commit}
        found = await api.restore(found_id, target)
        what = f"commit {found['commit']}" if found["commit"] else f"snapshot {found['snapshot']}"
        output.print_result(found, f"The workspace is put back to {what} before the agent's next turn.")

    with_api(run, as_json=as_json, api_url=api_url, user=user)


def _print_snapshots(console: "Console", snapshots: list[dict[str, object]]) -> None:
    from cli.output import print_table, table_time

    rows = [
        [
            str(each["number"]),
            str(each["reason"]),
            str(each["commit"] or "")[:12],
            table_time(console, each["stored_at"]),
        ]
        for each in snapshots
    ]
    if rows:
        print_table(console, ["snapshot", "reason", "commit", "stored"], rows)
