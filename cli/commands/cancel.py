"""`cofounder cancel`: cancel a build."""

from typing import TYPE_CHECKING

import typer

from cli.connection import resolve_build_id, with_api
from cli.parameters import ApiUrl, AsJson, BuildId, User

if TYPE_CHECKING:
    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer()


@app.command(epilog="Example: cofounder cancel 1b4e28ba-2fa1-11d2-883f-0016d3cca427")
def cancel(build_id: BuildId, as_json: AsJson = False, api_url: ApiUrl = None, user: User = None) -> None:
    """Cancel a build. Its workspace is kept as a snapshot."""

    async def run(api: "ApiClient", output: "Output") -> None:
        build = await api.cancel(await resolve_build_id(api, build_id))
        output.print_result(build, "Cancel requested. The build ends shortly.")

    with_api(run, as_json=as_json, api_url=api_url, user=user)
