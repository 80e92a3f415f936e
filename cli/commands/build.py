"""`cofounder build` and `cofounder watch`."""

import asyncio
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.connection import ApiUrl, AsJson, BuildId, User, id_of, with_api
from cli.exit_codes import WAITS_FOR_PERSON, code_of_build
from domain.errors import CofounderError
from domain.status import MAX_NIGHTS, SleepPolicy

if TYPE_CHECKING:
    from cli.api_client import ApiClient
    from cli.feed_state import FeedState
    from cli.feed_view import Leave
    from cli.output import Screen

building = typer.Typer()

FIRST_GOAL = "Build the first version that the idea brief describes, with tests, and make it run."
_EXITS = "Exit code 0: ready; 4: failed or cancelled; 5: waits for a person; all others: `cofounder --help`."

_Stay = Annotated[
    bool | None,
    typer.Option(
        "--stay/--leave",
        help="When the build waits for a person: stay, or leave with exit code 5. In a terminal it stays.",
        show_default=False,
    ),
]


@building.command(epilog=f'Example: cofounder build --idea "A waitlist for my bakery"\n\n{_EXITS}')
def build(
    brief: Annotated[Path | None, typer.Option("--brief", metavar="FILE", help="An idea brief as JSON.")] = None,
    idea: Annotated[str | None, typer.Option("--idea", help="An idea in a sentence, instead of a brief.")] = None,
    project: Annotated[uuid.UUID | None, typer.Option("--project", help="A project that is there already.")] = None,
    interview: Annotated[Path | None, typer.Option("--interview", metavar="FILE", help="An interview as JSON.")] = None,
    goal: Annotated[str, typer.Option("--goal", help="What this build is to do.")] = FIRST_GOAL,
    sleep_policy: Annotated[
        SleepPolicy,
        typer.Option("--sleep-policy", help="When today's money is used up: sleep until there is more, or stop."),
    ] = SleepPolicy.SLEEP,
    max_nights: Annotated[
        int, typer.Option("--max-nights", min=0, max=1000, help="So many nights asleep, then you are asked.")
    ] = MAX_NIGHTS,
    watch: Annotated[
        bool, typer.Option("--watch/--no-watch", help="Show the build until it ends, or return at once.")
    ] = True,
    stay: _Stay = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Start a build, of a new project or of one that is there.

    With --json it waits in silence and prints the build as it ended; with --no-watch, as it began.
    """
    from cli.inputs import check_goal, read_brief, read_interview

    if sum(given is not None for given in (brief, idea, project)) != 1:
        raise typer.BadParameter("Give one of --brief, --idea and --project.")
    if project is not None and interview is not None:
        raise typer.BadParameter("--interview goes with a new project.")
    check_goal(goal)
    wanted = read_brief(brief, idea)
    answers = None if interview is None else read_interview(interview)

    async def run(api: "ApiClient", screen: "Screen") -> int:
        found = await (api.create_project(wanted, answers) if project is None else api.read_project(str(project)))
        screen.note(f"project {found['id']}")
        try:
            started = await api.start_build(found["id"], goal, sleep_policy=sleep_policy.value, max_nights=max_nights)
        except CofounderError as error:
            if project is None:
                screen.note(f"The project is stored; later: cofounder build --project {found['id']}")
            raise error
        screen.note(f"build   {started['id']}")
        if not watch:
            screen.give(started, lambda _: None)
            return 0
        ended, code = await _watched(api, screen, started, found["name"], stay, as_events=False)
        if as_json:
            screen.give(ended, "")
        return code

    raise typer.Exit(with_api(run, as_json=as_json, api_url=api_url, user=user))


@building.command(epilog=f"Example: cofounder watch last\n\n{_EXITS}")
def watch(
    build_id: BuildId,
    after: Annotated[
        int,
        typer.Option("--after", metavar="EVENT", min=0, help="Not in a live view: begin after this event."),
    ] = 0,
    stay: _Stay = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts: each event as a line of JSON.")] = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Show a build live, from its beginning, until it ends.

    Ctrl-C leaves the build running; watch it again whenever you like. A lost connection is made again.
    """

    async def run(api: "ApiClient", screen: "Screen") -> int:
        found = await api.read_build(await id_of(api, build_id))
        project = await api.read_project(found["project_id"])
        _, code = await _watched(api, screen, found, project["name"], stay, as_events=as_json, after=after)
        return code

    raise typer.Exit(with_api(run, as_json=as_json, api_url=api_url, user=user))


async def _watched(
    api: "ApiClient",
    screen: "Screen",
    build: dict[str, Any],
    product: str,
    stay: bool | None,
    *,
    as_events: bool,
    after: int = 0,
) -> tuple[dict[str, Any], int]:
    """Follow the build as it is asked for; the build as it stands at the end, and the exit code."""
    from cli.commands.list import print_build
    from cli.feed_view import until_closed, wait_for_build, watch_as_json, watch_build
    from cli.output import is_interactive

    build_id = build["id"]
    stays = stay if stay is not None else is_interactive(screen.people) and not screen.as_json
    leave = until_closed if stays else _once_it_waits(build["last_event_id"])
    try:
        if as_events:
            state = await watch_as_json(api, build_id, leave, after=after)
        elif screen.as_json:
            state = await wait_for_build(api, build_id, leave)
        else:
            state = await watch_build(screen.people, api, build_id, product, leave, after=after)
    except asyncio.CancelledError:
        screen.note(f"The build goes on. To see it again: cofounder watch {build_id}")
        raise
    ended = await api.read_build(build_id)
    if not screen.as_json:
        print_build(screen.people, ended)
    if state.closed or ended["closed_at"] is not None:  # the latter where nothing was ever said in its feed
        return ended, code_of_build(ended["status"])
    then = f"cofounder answer {build_id} …" if ended.get("question") else f"cofounder wake {build_id}"
    screen.note(f"The build waits for a person ({state.waiting_for}). Then: {then}")
    return ended, WAITS_FOR_PERSON


def _once_it_waits(known: int) -> "Leave":
    """Leave when the build waits for a person; what it waited for before the event `known` is over."""

    def leave(state: "FeedState") -> bool:
        return state.status == "needs_input" and state.last_id >= known

    return leave
