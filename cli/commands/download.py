"""`cofounder preview` and `cofounder download`: what a build made."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.connection import ApiUrl, AsJson, BuildId, User, id_of, with_api
from domain.errors import CofounderError

if TYPE_CHECKING:
    from cli.api_client import ApiClient
    from cli.output import Screen

product = typer.Typer()

_PREVIEW_POLLS, _POLL_SECONDS = 300, 0.2

Format = Literal["tar.gz", "zip"]


@product.command(epilog="Example: cofounder preview last --seconds 7200")
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

    async def run(api: "ApiClient", screen: "Screen") -> None:
        found_id = await id_of(api, build_id)
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
        screen.give(found, str(found["url"]))

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@product.command(epilog="Example: cofounder download last --format zip --output product.zip")
def download(
    build_id: BuildId,
    format_: Annotated[
        Format | None, typer.Option("--format", help="What to save it as; otherwise as FILE's name says, or tar.gz.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to save it: a file or a directory.")
    ] = None,
    snapshot: Annotated[
        int | None, typer.Option("--snapshot", metavar="N", min=1, help="An earlier snapshot than the current one.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Save a build's workspace, `.git` included, as an archive."""

    async def run(api: "ApiClient", screen: "Screen") -> None:
        from cli.downloads import save, target_of

        found_id = await id_of(api, build_id)
        kind = format_ or ("zip" if output is not None and output.suffix == ".zip" else "tar.gz")
        target = target_of(output, f"workspace-{found_id}.{kind}", force=force)
        path = f"/v1/builds/{found_id}/snapshots/{snapshot or 'current'}/archive"
        async with api.stream(path, {"format": kind}) as pieces:
            saved = await save(pieces, target, force=force)
        document = {"build_id": found_id, "path": str(target), "format": kind, **saved}
        screen.give(document, f"{target} ({saved['bytes']:,} bytes)")

    with_api(run, as_json=as_json, api_url=api_url, user=user)
