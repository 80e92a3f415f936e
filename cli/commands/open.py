"""`cofounder open`: sign a browser in with a link that works once."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import resolve_build_id, with_api
from cli.parameters import LAST, ApiUrl, AsJson, User, parse_build_id
from domain.identity import Scope

if TYPE_CHECKING:
    from rich.console import Console

    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer()

_PAGE = Path(".cofounder") / "open.html"
"""Below the working directory: leads a browser to the link. Only its owner can read it."""


@app.command(name="open", epilog="Example: cofounder open")
def open_(
    build: Annotated[
        str | None,
        typer.Argument(metavar="[BUILD]", parser=parse_build_id, help=f"Show this build; `{LAST}` is your newest."),
    ] = None,
    operator: Annotated[
        bool, typer.Option("--operator", help="Sign in as an operator. API_TOKEN has to be the operators' token.")
    ] = False,
    only_print: Annotated[bool, typer.Option("--print", help="Print the link and open no browser.")] = False,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Make a link that signs a browser in, and open it. It works once, within ten minutes."""

    from cli.api_client import sign_in_url

    async def run(api: "ApiClient", output: "Output") -> None:
        made = await api.make_sign_in_link([str(scope) for scope in Scope] if operator else None)
        made["url"] = sign_in_url(made, None if build is None else await resolve_build_id(api, build))
        if not (only_print or as_json) and _has_browser():
            await open_in_browser(made["url"])

        def show(console: "Console") -> None:
            console.print(made["url"])
            console.print("The link signs a browser in: once, within ten minutes.")

        output.print_result(made, show)

    with_api(run, as_json=as_json, api_url=api_url, user=user)


def _has_browser() -> bool:
    """Whether someone sits at this terminal, with a display."""
    has_display = sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return sys.stdout.isatty() and has_display


async def open_in_browser(url: str) -> None:
    """Let the browser read the link from a file: every user of a machine can see command lines."""
    import asyncio
    import html
    import webbrowser

    _PAGE.parent.mkdir(exist_ok=True)
    _PAGE.touch(mode=0o600)
    _PAGE.chmod(0o600)
    _PAGE.write_text(f'<!doctype html><meta http-equiv="refresh" content="0; url={html.escape(url)}">\n')
    await asyncio.to_thread(webbrowser.open, _PAGE.absolute().as_uri())
