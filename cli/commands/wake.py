"""`cofounder wake`: make a build check whether it can continue."""

from typing import TYPE_CHECKING

import typer

from cli.connection import resolve_build_id, with_api
from cli.parameters import ApiUrl, AsJson, BuildId, User

if TYPE_CHECKING:
    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer()


@app.command(epilog="Example: cofounder wake last")
def wake(build_id: BuildId, as_json: AsJson = False, api_url: ApiUrl = None, user: User = None) -> None:
    """Make a sleeping or waiting build check again whether it can continue."""

    async def run(api: "ApiClient", output: "Output") -> None:
        build = await api.wake(await resolve_build_id(api, build_id))
        output.print_result(build, f"The build was {build['status']}. It now checks whether it can continue.")

    with_api(run, as_json=as_json, api_url=api_url, user=user)
