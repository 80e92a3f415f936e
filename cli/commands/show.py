"""`cofounder show`: a build's status."""

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
    """Show a build's status, budget and open question."""
    from cli.build_rows import print_build

    async def run(api: "ApiClient", output: "Output") -> None:
        build = await api.read_build(await resolve_build_id(api, build_id))
        output.print_result(build, lambda console: print_build(console, build))

    with_api(run, as_json=as_json, api_url=api_url, user=user)
