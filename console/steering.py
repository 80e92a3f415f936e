"""Commands that steer a build: each is one request, and one sentence about what it did."""

from typing import TYPE_CHECKING, Annotated

import typer

from console.connection import LAST, ApiUrl, AsJson, BuildId, User, id_of, parse_build, with_api
from domain.errors import CofounderError

if TYPE_CHECKING:
    from console.api_client import ApiClient
    from console.screen import Screen

steering = typer.Typer()

_OPTIONS = ("1", "2", "3", "4")
"""What is typed for an option rather than as an answer in words."""


def _build_and_text(words: list[str]) -> tuple[str, str]:
    """The build, your newest unless one is named, and what is said to it."""
    if len(words) > 2:
        raise typer.BadParameter("Put what you say between quotes.")
    *named, text = words
    if not text.strip():
        raise typer.BadParameter("Say something.")
    return (parse_build(named[0]) if named else LAST), text


@steering.command(epilog='Example: cofounder say last "Leave the login out for now."')
def say(
    words: Annotated[
        list[str], typer.Argument(metavar="[BUILD] TEXT", help="What you say, and before it a build other than `last`.")
    ],
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Say something to the agent. It reads it at its next turn; a build that waits for you goes on with it."""
    build, text = _build_and_text(words)

    async def run(api: "ApiClient", screen: "Screen") -> None:
        found = await api.say(await id_of(api, build), text)
        screen.give(found, f"Message {found['number']} is stored. The agent reads it at its next turn.")

    with_api(run, as_json=as_json, api_url=api_url, user=user)


@steering.command(epilog='Example: cofounder answer last 2\n\nExample: cofounder answer "Use SQLite instead."')
def answer(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[BUILD] ANSWER",
            help="An option's number or your own words, and before it a build other than `last`.",
        ),
    ],
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Answer the question of a build that waits for you; it goes on with your answer. `cofounder show` shows it."""
    build, text = _build_and_text(words)
    given: dict[str, object] = {"option": int(text)} if text.strip() in _OPTIONS else {"text": text}

    async def run(api: "ApiClient", screen: "Screen") -> None:
        build_id = await id_of(api, build)
        question = (await api.read_build(build_id))["question"]
        if question is None:
            raise CofounderError("The build asks nothing at the moment. To tell it something: cofounder say …")
        found = await api.answer(build_id, question["id"], given)
        screen.give(found, f"The build goes on with your answer: {found['answer']}")

    with_api(run, as_json=as_json, api_url=api_url, user=user)


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
