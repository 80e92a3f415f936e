"""`cofounder screenshots`: the pictures of a build's product."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.connection import resolve_build_id, with_api
from cli.parameters import ApiUrl, AsJson, BuildId, User

if TYPE_CHECKING:
    from rich.console import Console

    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer()

Json = dict[str, Any]


@app.command(epilog="Example: cofounder screenshots last --to pictures")
def screenshots(
    build_id: BuildId,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Save the pictures in this directory as WebP files.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """List the screenshots of a build's product, of evidence gates and of its agent, or save them."""

    async def run(api: "ApiClient", output: "Output") -> None:
        found_id = await resolve_build_id(api, build_id)
        listed = await _read_all(api, found_id)
        if to is not None:
            await _save(api, listed, to, force=force)
        elif not listed and not output.as_json:
            output.note("Nothing has taken a screenshot of this build's product yet.")
        document = {"build_id": found_id, "screenshots": listed}
        output.print_result(document, lambda console: _print(console, listed))

    with_api(run, as_json=as_json, api_url=api_url, user=user)


async def _read_all(api: "ApiClient", build_id: str) -> list[Json]:
    found: list[Json] = []
    before = None
    while True:
        page = await api.list_screenshots(build_id, before)
        found += page["screenshots"]
        before = page["next_before"]
        if before is None:
            return found


async def _save(api: "ApiClient", listed: list[Json], directory: Path, *, force: bool) -> None:
    """Save the pictures that are kept, and note the file in each entry."""
    from cli.downloads import choose_target, make_directory, save

    make_directory(directory)
    for each in listed:
        each["file"] = None
        if each["kept"] is not False:
            target = choose_target(directory, f"{each['id']}.webp", force=force)
            async with api.stream(each["path"]) as pieces:
                await save(pieces, target, force=force)
            each["file"] = str(target)


def _print(console: "Console", listed: list[Json]) -> None:
    from cli.output import print_table, table_time

    rows = [
        [
            each["id"],
            f"gate {each['gate']}" if each["kind"] == "gate" else f"turn {each['turn']}",
            each["viewport"],
            "" if each["width"] is None else f"{each['width']}x{each['height']}",
            table_time(console, each["taken_at"]),
            "no longer kept" if each["kept"] is False else each.get("file") or "",
        ]
        for each in listed
    ]
    if rows:
        print_table(console, ["screenshot", "of", "viewport", "size", "taken", ""], rows)
