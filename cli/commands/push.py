"""`cofounder push`: push a build's code to a git server."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import resolve_build_id, with_api
from cli.parameters import ApiUrl, AsJson, BuildId, User

if TYPE_CHECKING:
    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer()

_STANDARD_INPUT = Path("-")


@app.command(epilog="Example: cofounder push last https://github.com/ada/pantry-pal.git --branch mvp")
def push(
    build_id: BuildId,
    url: Annotated[str, typer.Argument(metavar="URL", help="The repository's https:// URL, without a token in it.")],
    branch: Annotated[
        str | None, typer.Option("--branch", metavar="NAME", help="Push to this branch instead of the workspace's own.")
    ] = None,
    snapshot: Annotated[
        int | None, typer.Option("--snapshot", metavar="N", min=1, help="This snapshot instead of the current one.")
    ] = None,
    username: Annotated[
        str | None,
        typer.Option("--username", metavar="NAME", help="What the server wants beside the token. Most take anything."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="FILE", help="Read the token from FILE; - is standard input."),
    ] = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Push the git history of a build's code to a repository of yours. Nothing there is ever overwritten.

    Asks for a token of the git server that may write to the repository. The token is never an argument, since every
    user of a machine can see command lines.
    """
    token = _read_token(token_file)

    async def run(api: "ApiClient", output: "Output") -> None:
        resolved_id = await resolve_build_id(api, build_id)
        wanted = {"url": url, "token": token, "branch": branch, "snapshot": snapshot, "username": username}
        pushed = await api.push(resolved_id, wanted)
        where = f"branch {pushed['branch']} of {pushed['repository']}"
        commit = pushed["commit"][:12]
        text = f"{commit} is now {where}" if pushed["is_new"] else f"{where} was at {commit} already"
        output.print_result(pushed, text)

    with_api(run, as_json=as_json, api_url=api_url, user=user)


def _read_token(file: Path | None) -> str:
    """Read the token from the file or the terminal.

    Raises:
        BadParameter: there is none.
    """
    if file is None and not sys.stdin.isatty():
        raise typer.BadParameter(
            "Without a terminal, give the token with --token-file FILE, or pipe it to --token-file -."
        )
    try:
        if file is None:
            token = typer.prompt("Token of the git server", hide_input=True, err=True)
        else:
            token = sys.stdin.read() if file == _STANDARD_INPUT else file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file} can't be read: {error}") from error
    if not (token := token.strip()):
        raise typer.BadParameter("The token is empty.")
    return str(token)
