"""`cofounder show`: a build's status, or what its agent has said in a turn."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import resolve_build_id, with_api
from cli.parameters import ApiUrl, AsJson, BuildId, User
from domain.errors import NotFound

if TYPE_CHECKING:
    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer()


@app.command(epilog="Example: cofounder show last --turn 7")
def show(
    build_id: BuildId,
    turn: Annotated[
        int | None,
        typer.Option("--turn", metavar="N", min=1, max=2**31 - 2, help="What the agent has said and called in a turn."),
    ] = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Show a build's status, budget and open question; or one of its turns."""
    from cli.build_rows import print_build
    from cli.conversation_rows import print_turn

    async def run(api: "ApiClient", output: "Output") -> None:
        found_id = await resolve_build_id(api, build_id)
        if turn is None:
            build = await api.read_build(found_id)
            output.print_result(build, lambda console: print_build(console, build))
            return
        page = await api.list_turns(found_id, before=turn + 1, limit=1)
        found = next((each for each in page["turns"] if each["number"] == turn), None)
        if found is None:
            raise NotFound(f"Build {found_id} has no turn {turn}. `cofounder logs {found_id}` lists what it has done.")
        output.print_result(found, lambda console: print_turn(console, found_id, found))

    with_api(run, as_json=as_json, api_url=api_url, user=user)
