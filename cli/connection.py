"""What the commands that speak to the API have in common: their options, the connection, the output."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar
from urllib.parse import urlsplit

import typer

from domain.errors import Misconfigured, NotFound

if TYPE_CHECKING:  # they take their time to import, and `--help` needs none of them
    from cli.api_client import ApiClient
    from cli.output import Screen

T = TypeVar("T")

LAST = "last"
"""In place of a build's id: the user's newest build."""


def parse_build(text: str) -> str:
    """The id of a build, or `last`, as it was typed.

    Raises:
        BadParameter: it is neither.
    """
    if text == LAST:
        return text
    try:
        return str(uuid.UUID(text.removeprefix("build-")))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a build's id. `cofounder list` shows them.") from None


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return text
    except ValueError:
        pass
    raise typer.BadParameter(f"{text!r} is not of the form https://host or http://host:port.")


def _user(text: str) -> str:
    if not 1 <= len(text) <= 200 or not all("!" <= character <= "~" for character in text):
        raise typer.BadParameter("A user's id is 1 to 200 printable ASCII characters without a space.")
    return text


BuildId = Annotated[
    str,
    typer.Argument(metavar="BUILD", parser=parse_build, help=f"The build's id, or `{LAST}` for your newest build."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="For scripts: one JSON document on standard output, nothing else.")
]
ApiUrl = Annotated[
    str | None,
    typer.Option("--api-url", metavar="URL", parser=_url, help="The API, instead of the one at COFOUNDER_API_URL."),
]
User = Annotated[
    str | None,
    typer.Option("--user", metavar="USER", parser=_user, help="Speak for this user, instead of the API's default."),
]


def with_api(
    run: "Callable[[ApiClient, Screen], Awaitable[T]]", *, as_json: bool, api_url: str | None, user: str | None
) -> T:
    """Run a command with an open connection to the API. The token comes from API_TOKEN only: a command line is seen
    by everybody on the machine.

    Raises:
        Misconfigured: a setting is wrong or missing; says which.
    """
    from cli.api_client import ApiClient
    from cli.output import Screen
    from settings import load_settings

    settings = load_settings()
    if settings.api_token is None:
        raise Misconfigured("API_TOKEN is not set. Set it to the token that the API was started with.")
    token = settings.api_token.get_secret_value()

    async def connected() -> T:
        async with ApiClient(api_url or settings.cofounder_api_url, token, user) as api:
            return await run(api, Screen(as_json))

    return asyncio.run(connected())


async def id_of(api: "ApiClient", build: str) -> str:
    """The build's id, also where `last` stands for it.

    Raises:
        NotFound: there is no build at all.
    """
    if build != LAST:
        return build
    newest = (await api.list_builds(limit=1))["builds"]
    if not newest:
        raise NotFound("There is no build yet. Start one: cofounder build --idea …")
    return str(newest[0]["id"])
