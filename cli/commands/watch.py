"""`cofounder watch`: show a build live."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.connection import resolve_build_id, with_api
from cli.exit_codes import WAITS_FOR_PERSON, WATCH_EXIT_CODES, exit_code_of_build
from cli.parameters import ApiUrl, BuildId, User

if TYPE_CHECKING:
    from cli.api_client import ApiClient
    from cli.feed_state import FeedState
    from cli.feed_view import ShouldLeave
    from cli.output import Output

app = typer.Typer()

Stay = Annotated[
    bool | None,
    typer.Option(
        "--stay/--leave",
        help="When the build waits for a person: stay, or leave with exit code 5. Default in a terminal: stay.",
        show_default=False,
    ),
]


@app.command(epilog=f"Example: cofounder watch last\n\n{WATCH_EXIT_CODES}")
def watch(
    build_id: BuildId,
    after: Annotated[
        int,
        typer.Option("--after", metavar="EVENT", min=0, help="Begin after this event. The live view ignores it."),
    ] = 0,
    stay: Stay = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts: print each event as a line of JSON.")] = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Show a build live, from its beginning, until it ends.

    Ctrl-C stops watching; the build keeps running. Lost connections are restored automatically.
    """

    async def run(api: "ApiClient", output: "Output") -> int:
        build = await api.read_build(await resolve_build_id(api, build_id))
        project = await api.read_project(build["project_id"])
        _, code = await follow_build(api, output, build, project["name"], stay, as_events=as_json, after=after)
        return code

    raise typer.Exit(with_api(run, as_json=as_json, api_url=api_url, user=user))


async def follow_build(
    api: "ApiClient",
    output: "Output",
    build: dict[str, Any],
    product: str,
    stay: bool | None,
    *,
    as_events: bool,
    after: int = 0,
) -> tuple[dict[str, Any], int]:
    """Show a build until it ends, or until it waits for a person.

    Args:
        stay: whether to stay while the build waits for a person; None decides by the terminal.
        as_events: print each event as JSON.
        after: print only what follows this event, except in a live view.

    Returns:
        The build at the end, and the exit code.
    """
    from cli.build_rows import print_build
    from cli.feed_view import until_closed, wait_for_build, watch_as_json, watch_build
    from cli.output import is_interactive

    build_id = build["id"]
    stays = stay if stay is not None else is_interactive(output.people) and not output.as_json
    leave = until_closed if stays else _once_it_waits(build["last_event_id"])
    try:
        if as_events:
            state = await watch_as_json(api, build_id, leave, after=after)
        elif output.as_json:
            state = await wait_for_build(api, build_id, leave)
        else:
            state = await watch_build(output.people, api, build_id, product, leave, after=after)
    except asyncio.CancelledError:
        output.note(f"The build keeps running. To see it again: cofounder watch {build_id}")
        raise
    ended = await api.read_build(build_id)
    if not output.as_json:
        print_build(output.people, ended)
    if state.closed or ended["closed_at"] is not None:  # the latter if its feed has no status event
        return ended, exit_code_of_build(ended["status"])
    command = f"cofounder answer {build_id} …" if ended.get("question") else f"cofounder wake {build_id}"
    output.note(f"The build waits for a person ({state.waiting_for}). To continue: {command}")
    return ended, WAITS_FOR_PERSON


def _once_it_waits(known: int) -> "ShouldLeave":
    """Leave when the build waits for a person. Waits before the event `known` are over and do not count."""

    def leave(state: "FeedState") -> bool:
        return state.status == "needs_input" and state.last_id >= known

    return leave
