"""Commands that nudge a build: each is one request, and one sentence about what it did."""

from typing import TYPE_CHECKING

import typer

from console.connection import ApiUrl, AsJson, BuildId, User, id_of, with_api

if TYPE_CHECKING:
    from console.api_client import ApiClient
    from console.screen import Screen

steering = typer.Typer()


@steering.command(epilog="Example: cofounder wake last")
def wake(build_id: BuildId, as_json: AsJson = False, api_url: ApiUrl = None, user: User = None) -> None:
    """Have a build that sleeps or waits look again whether it can go on."""

    async def run(api: "ApiClient", screen: "Screen") -> None:
        found = await api.wake(await id_of(api, build_id))
        screen.give(found, f"The build was {found['status']} and has been told to look again.")

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@steering.command(epilog="Example: cofounder cancel 1b4e28ba-2fa1-11d2-883f-0016d3cca427")
def cancel(build_id: BuildId, as_json: AsJson = False, api_url: ApiUrl = None, user: User = None) -> None:
    """Ask a build to end. Its workspace is kept as a snapshot."""

    async def run(api: "ApiClient", screen: "Screen") -> None:
        found = await api.cancel(await id_of(api, build_id))
        screen.give(found, "The build has been asked to end.")

    with_api(run, as_json=as_json, api_url=api_url, user=user)
