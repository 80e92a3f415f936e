"""Connects the commands that use the API, and resolves `last` to a build's id."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from cli.parameters import LAST
from domain.errors import InvalidInput, Misconfigured, NotFound

if TYPE_CHECKING:  # slow to import, and `--help` does not need them
    from cli.api_client import ApiClient
    from cli.output import Output

T = TypeVar("T")


def with_api(
    run: "Callable[[ApiClient, Output], Awaitable[T]]",
    *,
    as_json: bool,
    api_url: str | None,
    user: str | None,
    operator: bool = False,
) -> T:
    """Run a command with an open connection to the API.

    The token or API key comes from API_TOKEN only, since every user of a machine can see command lines; with
    `operator` from API_OPERATOR_TOKEN if that is set.

    Raises:
        Misconfigured: a setting is wrong or missing; the message names it.
    """
    from cli.api_client import ApiClient
    from cli.output import Output
    from settings import load_settings

    settings = load_settings()
    secret = settings.api_operator_token if operator else None
    secret = secret or settings.api_token
    if secret is None and operator:
        raise Misconfigured(
            "API_OPERATOR_TOKEN is not set. Set it to the operators' token that the API was started with, or API_TOKEN "
            "to the API key of an operator; for `cofounder up`: . .cofounder/up/env.sh"
        )
    if secret is None:
        raise Misconfigured(
            "API_TOKEN is not set. Set it to an API key: make one in the web console, at Account, or ask an operator "
            "for one (`cofounder keys create NAME --user YOU`). On the API's own machine, the token that the API was "
            "started with does as well; for `cofounder up`: . .cofounder/up/env.sh"
        )
    token = secret.get_secret_value()

    async def connected() -> T:
        async with ApiClient(api_url or settings.cofounder_api_url, token, user) as api:
            return await run(api, Output(as_json))

    return asyncio.run(connected())


async def resolve_build_id(api: "ApiClient", build: str) -> str:
    """The build's id; `last` becomes the id of the newest build that the user has started.

    Raises:
        NotFound: the user has no build.
    """
    if build != LAST:
        return build
    newest = (await api.list_builds(started_by_me=True, limit=1))["builds"]
    if not newest:
        raise NotFound("There is no build yet. Start one: cofounder build --idea …")
    return str(newest[0]["id"])


async def resolve_organisation(api: "ApiClient", organisation: str) -> str:
    """The id of the user's organisation with this id or name.

    Raises:
        NotFound, InvalidInput: none has it, or several have.
    """
    listed = (await api.list_organisations())["organisations"]
    ids = [str(each["id"]) for each in listed if organisation in (each["id"], each["name"])]
    if not ids:
        raise NotFound(f"You are in no organisation {organisation}. `cofounder orgs list` shows yours.")
    if len(ids) > 1:
        raise InvalidInput(f"Several of your organisations are called {organisation}. Use an id: {', '.join(ids)}")
    return ids[0]
