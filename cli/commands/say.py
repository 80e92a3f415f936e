"""Commands that steer a build: each is one request, and one sentence about what it did."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import LAST, ApiUrl, AsJson, BuildId, User, id_of, parse_build, with_api
from domain.errors import CofounderError

if TYPE_CHECKING:
    from rich.console import Console

    from cli.api_client import ApiClient
    from cli.output import Screen

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


@steering.command(epilog="Example: cofounder restore last --snapshot 3\n\nExample: cofounder restore --commit 4f9d2ac1")
def restore(
    build_id: BuildId = LAST,
    snapshot: Annotated[
        int | None, typer.Option("--snapshot", metavar="N", min=1, help="Back to a snapshot that is kept.")
    ] = None,
    commit: Annotated[
        str | None, typer.Option("--commit", metavar="SHA", help="Back to a commit that ended a phase.")
    ] = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Put the workspace of an open build back, between two turns. Without an option: list the snapshots that are kept.

    What is there now is kept as a snapshot, and the agent is told. An ended build stays as it is: a new one of its
    project goes on from the last ready version.
    """
    if snapshot is not None and commit is not None:
        raise typer.BadParameter("Give --snapshot or --commit, not both.")

    async def run(api: "ApiClient", screen: "Screen") -> None:
        found_id = await id_of(api, build_id)
        if snapshot is None and commit is None:
            kept = await api.list_snapshots(found_id)
            screen.give(kept, lambda console: _print_snapshots(console, kept["snapshots"]))
            return
        target = {"snapshot": snapshot} if commit is None else {"commit": commit}
        found = await api.restore(found_id, target)
        what = f"commit {found['commit']}" if found["commit"] else f"snapshot {found['snapshot']}"
        screen.give(found, f"The workspace is put back to {what} before the agent's next turn.")

    with_api(run, as_json=as_json, api_url=api_url, user=user)


def _print_snapshots(console: "Console", snapshots: list[dict[str, object]]) -> None:
    from cli.output import print_table, when

    rows = [
        [str(each["number"]), str(each["reason"]), str(each["commit"] or "")[:12], when(console, each["stored_at"])]
        for each in snapshots
    ]
    if rows:
        print_table(console, ["snapshot", "reason", "commit", "stored"], rows)


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
