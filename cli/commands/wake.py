"""`cofounder wake`: have a build look again whether it can go on."""

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
    """Have a build that sleeps or waits look again whether it can go on."""

    async def run(api: "ApiClient", output: "Output") -> None:
        found = await api.wake(await resolve_build_id(api, build_id))
        output.print_result(found, f"The build was {found['status']} and has been told to look again.")

    with_api(run, as_json=as_json, api_url=api_url, user=user)
