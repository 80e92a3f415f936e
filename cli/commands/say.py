"""`cofounder say`: a message to the agent."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import resolve_build_id, with_api
from cli.parameters import ApiUrl, AsJson, User, parse_build_and_text

if TYPE_CHECKING:
    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer()


@app.command(epilog='Example: cofounder say last "Leave the login out for now."')
def say(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[BUILD] TEXT", help="Your message. Put a build's id before it unless you mean `last`."),
    ],
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Send the agent a message. It reads it at its next turn; a build that waits for you continues."""
    build, text = parse_build_and_text(words)

    async def run(api: "ApiClient", output: "Output") -> None:
        message = await api.say(await resolve_build_id(api, build), text)
        output.print_result(message, f"Message {message['number']} is stored. The agent reads it at its next turn.")

    with_api(run, as_json=as_json, api_url=api_url, user=user)
