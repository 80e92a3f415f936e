"""`cofounder files`: the files of a build's workspace, and the text of one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import resolve_build_id, with_api
from cli.parameters import ApiUrl, AsJson, BuildId, User

if TYPE_CHECKING:
    from cli.api_client import ApiClient, Json
    from cli.output import Output

app = typer.Typer()


@app.command(epilog="Example: cofounder files last app/main.py")
def files(
    build_id: BuildId,
    path: Annotated[str | None, typer.Argument(metavar="[PATH]", help="Show this file's text.")] = None,
    snapshot: Annotated[
        int | None,
        typer.Option(
            "--snapshot", metavar="N", min=1, max=10**9 - 1, help="As of this snapshot instead of the current one."
        ),
    ] = None,
    output_path: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Save PATH to this file or directory.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """List the files of a build's workspace as of a snapshot, or show or save one."""
    if output_path is not None and path is None:
        raise typer.BadParameter("--output needs a PATH. To save the whole workspace: cofounder download")

    async def run(api: "ApiClient", output: "Output") -> None:
        from cli.downloads import choose_target, save
        from cli.output import print_table
        from cli.printable_text import printable_lines

        found_id = await resolve_build_id(api, build_id)
        as_of = str(snapshot or "latest")
        if path is None:
            document = await _list(api, found_id, as_of)
            rows = [(f"{each['bytes']:,}", each["path"]) for each in document["files"]]
            output.print_result(document, lambda console: print_table(console, ("bytes", "path"), rows))
        elif output_path is not None:
            target = choose_target(output_path, path.rpartition("/")[2] or "file", force=force)
            content = f"/v1/builds/{found_id}/snapshots/{as_of}/file/content"
            async with api.stream(content, {"path": path}) as pieces:
                saved = await save(pieces, target, force=force)
            document = {"build_id": found_id, "path": path, "saved_as": str(target), **saved}
            output.print_result(document, f"{target} ({saved['bytes']:,} bytes)")
        else:
            document = await api.read_file(found_id, as_of, path)
            output.print_result(document, lambda console: console.print(printable_lines(_text(document))))
            if document["truncated"] and not as_json:
                output.note("… Only the beginning is shown. To have all of it, add --output FILE")

    with_api(run, as_json=as_json, api_url=api_url, user=user)


async def _list(api: "ApiClient", build_id: str, snapshot: str) -> "Json":
    """All pages of the list as one."""
    document = await api.list_files(build_id, snapshot)
    while document["next_after"] is not None:
        page = await api.list_files(build_id, str(document["snapshot"]), after=document["next_after"])
        document = page | {"files": document["files"] + page["files"]}
    return document


def _text(file: "Json") -> str:
    if file["kind"] == "link":
        return f"A link to {file['text']}"
    if file["binary"]:
        return f"A binary file ({file['media_type']}, {file['bytes']:,} bytes). To save it, add --output FILE"
    return str(file["text"])
