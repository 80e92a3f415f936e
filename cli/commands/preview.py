"""`cofounder preview`: open a ready build's product."""

import asyncio
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.connection import resolve_build_id, with_api
from cli.parameters import ApiUrl, AsJson, BuildId, User
from domain.errors import CofounderError

if TYPE_CHECKING:
    from rich.console import Console

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
    share: Annotated[
        bool, typer.Option("--share", help="Make a link with which anyone can see the preview while it is open.")
    ] = False,
    hours: Annotated[
        int | None, typer.Option("--hours", min=1, max=2160, help="How long the link of --share works; 168 by default.")
    ] = None,
    links: Annotated[bool, typer.Option("--links", help="Only list the links that work.")] = False,
    revoke: Annotated[
        uuid.UUID | None, typer.Option("--revoke", metavar="LINK", help="Revoke the link with this id.")
    ] = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Open a ready build's preview, or extend it; or share it."""
    if hours is not None and not share:
        raise typer.BadParameter("It says how long a new link works, so it needs --share.", param_hint="--hours")

    async def run(api: "ApiClient", output: "Output") -> None:
        resolved_id = await resolve_build_id(api, build_id)
        if share:
            made = await api.make_preview_link(resolved_id, hours)
            output.note(f"Anyone with this link can see the preview until {made['expires_at']}, while it is open.")
            output.note(f"To revoke it: cofounder preview {resolved_id} --revoke {made['id']}")
            output.print_result(made, made["url"])
            return
        if links:
            result = await api.list_preview_links(resolved_id)
            output.print_result(result, lambda console: _show_links(console, result["links"]))
            return
        if revoke is not None:
            await api.revoke_preview_link(resolved_id, str(revoke))
            output.print_result({"revoked": str(revoke)}, "The link no longer shows the preview.")
            return
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


def _show_links(console: "Console", links: Sequence[Any]) -> None:
    from cli.output import print_table

    if not links:
        console.print("The preview has no link that works. To make one: cofounder preview BUILD --share")
        return
    rows = [(link["id"], link["created_by"], link["expires_at"]) for link in links]
    print_table(console, ("link", "made by", "works until"), rows)
