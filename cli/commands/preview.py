"""`cofounder preview`: open a ready build's product."""

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
        int | None, typer.Option("--seconds", min=60, max=86_400, help="Keep it open for this long from now.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start the product again, for example with secrets that you have set.")
    ] = False,
    log: Annotated[
        bool, typer.Option("--log", help="Only show what the product printed at its last start, without its secrets.")
    ] = False,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Open a ready build's preview, or extend it."""

    async def run(api: "ApiClient", output: "Output") -> None:
        resolved_id = await resolve_build_id(api, build_id)
        if log:
            current = await api.read_preview(resolved_id)
            output.print_result(current, current["log"] or "The product has not been started by a preview yet.")
            return
        before = (await api.open_preview(resolved_id, seconds, restart=restart)).get("expires_at")
        for _ in range(_PREVIEW_POLLS):
            current = await api.read_preview(resolved_id)
            if current["state"] == "open" and current["expires_at"] != before:
                break
            if current["state"] == "failed":
                output.note(current["log"] or "")
                raise CofounderError(f"The preview could not be opened: {current['reason']}")
            if current["state"] == "opening" and current["reason"]:
                raise CofounderError(f"{current['reason']} Look again: cofounder preview {resolved_id}")
            await asyncio.sleep(_POLL_SECONDS)
        if current["state"] != "open":
            raise CofounderError(f"The preview is still {current['state']}. Try again: cofounder preview {resolved_id}")
        output.print_result(current, str(current["url"]))

    with_api(run, as_json=as_json, api_url=api_url, user=user)
