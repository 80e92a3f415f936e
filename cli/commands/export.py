"""`cofounder export`: save all that a project has, or what is known of a user."""

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import with_api
from cli.parameters import ApiUrl, AsJson, User
from domain.errors import InvalidInput

if TYPE_CHECKING:
    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer()


@app.command(epilog="Example: cofounder export 9b2f0c1e-6a54-4a0b-9d5e-2f1f8f0f6c11 --output pantry-pal.zip")
def export(
    project: Annotated[
        uuid.UUID | None, typer.Argument(metavar="[PROJECT]", help="The project's id. Without it: your account.")
    ] = None,
    output_path: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to save it: a file or a directory.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    in_background: Annotated[
        bool,
        typer.Option("--in-background", help="Have a worker write it. Download it later: cofounder exports download."),
    ] = False,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Save a project as a zip: its documents, and each build with its conversation, feed and last workspace.

    Without a project: what is known of you, and the tokens of the model calls that you paid for.
    """

    async def request(api: "ApiClient", output: "Output") -> None:
        asked = await api.create_export(str(project) if project else None)
        output.print_result(
            asked, f"Export {asked['id']} is being written. To download it: cofounder exports download {asked['id']}"
        )

    async def run(api: "ApiClient", output: "Output") -> None:
        from cli.downloads import choose_target, save

        target = choose_target(output_path, f"project-{project}.zip" if project else "account.zip", force=force)
        path = f"/v1/projects/{project}/export" if project else "/v1/account/export"
        async with api.stream(path) as pieces:
            file_info = await save(pieces, target, force=force)
        document = {"project_id": str(project) if project else None, "path": str(target), **file_info}
        output.print_result(document, f"{target} ({file_info['bytes']:,} bytes)")

    if in_background and (output_path is not None or force):
        raise InvalidInput("--in-background saves no file here. Leave out --output and --force.")
    with_api(request if in_background else run, as_json=as_json, api_url=api_url, user=user)
