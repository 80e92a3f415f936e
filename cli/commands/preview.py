"""`cofounder preview`: open the product of a build."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import resolve_build_id, with_api
from cli.parameters import ApiUrl, AsJson, BuildId, User
from domain.errors import CofounderError

if TYPE_CHECKING:
    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer()

_PREVIEW_POLLS, _POLL_SECONDS = 300, 0.2


@app.command(epilog="Example: cofounder preview last --seconds 7200")
def preview(
    build_id: BuildId,
    seconds: Annotated[
        int | None, typer.Option("--seconds", min=60, max=86_400, help="How long it stays open from now.")
    ] = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Open the product of a ready build, or keep it open for longer."""

    async def run(api: "ApiClient", output: "Output") -> None:
        found_id = await resolve_build_id(api, build_id)
        before = (await api.open_preview(found_id, seconds)).get("expires_at")
        for _ in range(_PREVIEW_POLLS):
            found = await api.read_preview(found_id)
            if found["state"] == "open" and found["expires_at"] != before:
                break
            if found["state"] == "failed":
                raise CofounderError(f"The preview could not be opened: {found['reason']}")
            await asyncio.sleep(_POLL_SECONDS)
        if found["state"] != "open":
            raise CofounderError(f"The preview is still {found['state']}. Look again: cofounder preview {found_id}")
        output.print_result(found, str(found["url"]))

    with_api(run, as_json=as_json, api_url=api_url, user=user)
