"""`cofounder restore`: restore the workspace of an open build."""

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
        int | None, typer.Option("--snapshot", metavar="N", min=1, help="Restore this stored snapshot.")
    ] = None,
    commit: Annotated[
        str | None, typer.Option("--commit", metavar="SHA", help="Restore this commit, which must have ended a phase.")
    ] = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Restore the workspace of an open build between two turns. Without options, list the stored snapshots.

    The current workspace is kept as a snapshot, and the agent is told. A closed build can't be restored: start a new
    build with its snapshot (`cofounder build --from BUILD:N`).
    """
    if snapshot is not None and commit is not None:
        raise typer.BadParameter("Give --snapshot or --commit, not both.")

    async def run(api: "ApiClient", output: "Output") -> None:
        resolved_id = await resolve_build_id(api, build_id)
        if snapshot is None and commit is None:
            page = await api.list_snapshots(resolved_id)
            output.print_result(page, lambda console: _print_snapshots(console, page["snapshots"]))
            return
        target = {"snapshot": snapshot} if commit is None else {"commit": commit}
        request = await api.restore(resolved_id, target)
        what = f"commit {request['commit']}" if request["commit"] else f"snapshot {request['snapshot']}"
        output.print_result(request, f"The workspace will be restored to {what} before the agent's next turn.")

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
