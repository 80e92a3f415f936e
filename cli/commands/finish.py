"""`cofounder finish`: have a build's product checked as it is."""

from typing import TYPE_CHECKING

import typer

from cli.connection import resolve_build_id, with_api
from cli.parameters import ApiUrl, AsJson, BuildId, User

if TYPE_CHECKING:
    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer()


@app.command(epilog="Example: cofounder finish last")
def finish(build_id: BuildId, as_json: AsJson = False, api_url: ApiUrl = None, user: User = None) -> None:
    """Have the product checked as it is, instead of going on. It becomes ready if it passes."""

    async def run(api: "ApiClient", output: "Output") -> None:
        build = await api.finish(await resolve_build_id(api, build_id))
        output.print_result(build, "The product is checked once the agent's current turn has ended.")

    with_api(run, as_json=as_json, api_url=api_url, user=user)
