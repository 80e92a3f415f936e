"""`cofounder show`: where a build stands."""

from typing import TYPE_CHECKING

import typer

from cli.connection import resolve_build_id, with_api
from cli.parameters import ApiUrl, AsJson, BuildId, User

if TYPE_CHECKING:
    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer()


@app.command(epilog="Example: cofounder show last")
def show(build_id: BuildId, as_json: AsJson = False, api_url: ApiUrl = None, user: User = None) -> None:
    """Show where a build stands."""
    from cli.build_rows import print_build

    async def run(api: "ApiClient", output: "Output") -> None:
        found = await api.read_build(await resolve_build_id(api, build_id))
        output.print_result(found, lambda console: print_build(console, found))

    with_api(run, as_json=as_json, api_url=api_url, user=user)
