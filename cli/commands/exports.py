"""`cofounder exports …`: exports that are written in the background."""

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.connection import with_api
from cli.parameters import ApiUrl, AsJson, User

if TYPE_CHECKING:
    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer(no_args_is_help=True, help="List and download what `cofounder export --in-background` writes.")

_Export = Annotated[uuid.UUID, typer.Argument(metavar="EXPORT", help="The export's id.")]

_ID = "6f0a3f8e-0e61-4a0e-8f0e-61c7d1a2b105"


@app.command(name="list", epilog="Example: cofounder exports list")
def list_(as_json: AsJson = False, api_url: ApiUrl = None, user: User = None) -> None:
    """List your exports, the newest first."""
    from cli.output import print_rows

    async def run(api: "ApiClient", output: "Output") -> None:
        listed = await api.list_exports()
        rows = [(each["id"], _sentence_of(each)) for each in listed["exports"]]
        output.print_result(
            listed,
            lambda console: print_rows(console, rows) if rows else console.print("You have no exports."),
        )

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@app.command(epilog=f"Example: cofounder exports show {_ID}")
def show(export: _Export, as_json: AsJson = False, api_url: ApiUrl = None, user: User = None) -> None:
    """Show how far an export is. `cofounder certificates show` has its certificate."""
    from cli.output import print_rows

    async def run(api: "ApiClient", output: "Output") -> None:
        read = await api.read_export(str(export))
        rows = [(name.replace("_", " "), f"{value}") for name, value in read.items() if value is not None]
        output.print_result(read, lambda console: print_rows(console, rows))

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@app.command(epilog=f"Example: cofounder exports download {_ID} --output pantry-pal.zip")
def download(
    export: _Export,
    output_path: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to save it: a file or a directory.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Save the file of an export."""

    async def run(api: "ApiClient", output: "Output") -> None:
        from cli.downloads import choose_target, save

        target = choose_target(output_path, f"export-{export}.zip", force=force)
        async with api.stream(f"/v1/exports/{export}/file") as pieces:
            file_info = await save(pieces, target, force=force)
        document = {"export_id": str(export), "path": str(target), **file_info}
        output.print_result(document, f"{target} ({file_info['bytes']:,} bytes)")

    with_api(run, as_json=as_json, api_url=api_url, user=user)


def _sentence_of(export: dict[str, Any]) -> str:
    of = f"project {export['project_id']}" if export["project_id"] else "the account"
    until = f" until {export['expires_at']}" if export["state"] == "ready" else ""
    return f"{of}: {export['state']}{until}, asked for {export['requested_at']}"
