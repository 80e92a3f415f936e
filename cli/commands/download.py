"""`cofounder download`: save a build's workspace."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.connection import resolve_build_id, with_api
from cli.parameters import ApiUrl, AsJson, BuildId, User

if TYPE_CHECKING:
    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer()

Format = Literal["tar.gz", "zip"]


@app.command(epilog="Example: cofounder download last --format zip --output product.zip")
def download(
    build_id: BuildId,
    format_: Annotated[
        Format | None,
        typer.Option("--format", help="The archive's format. By default what FILE's name says, or tar.gz."),
    ] = None,
    output_path: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to save it: a file or a directory.")
    ] = None,
    snapshot: Annotated[
        int | None, typer.Option("--snapshot", metavar="N", min=1, help="This snapshot instead of the current one.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Save a build's workspace, `.git` included, as an archive."""

    async def run(api: "ApiClient", output: "Output") -> None:
        from cli.downloads import choose_target, save

        resolved_id = await resolve_build_id(api, build_id)
        archive_format = format_ or ("zip" if output_path is not None and output_path.suffix == ".zip" else "tar.gz")
        target = choose_target(output_path, f"workspace-{resolved_id}.{archive_format}", force=force)
        path = f"/v1/builds/{resolved_id}/snapshots/{snapshot or 'current'}/archive"
        async with api.stream(path, {"format": archive_format}) as pieces:
            file_info = await save(pieces, target, force=force)
        document = {"build_id": resolved_id, "path": str(target), "format": archive_format, **file_info}
        output.print_result(document, f"{target} ({file_info['bytes']:,} bytes)")

    with_api(run, as_json=as_json, api_url=api_url, user=user)
