"""`cofounder build`: start a build."""

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.commands.watch import Stay, follow_build
from cli.connection import with_api
from cli.exit_codes import WATCH_EXIT_CODES
from cli.parameters import ApiUrl, AsJson, User
from domain.errors import CofounderError
from domain.status import MAX_NIGHTS, SleepPolicy

if TYPE_CHECKING:
    from cli.api_client import ApiClient
    from cli.output import Output

app = typer.Typer()

FIRST_GOAL = "Build the first version that the idea brief describes, with tests, and make it run."


@app.command(epilog=f'Example: cofounder build --idea "A waitlist for my bakery"\n\n{WATCH_EXIT_CODES}')
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
    stay: Stay = None,
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

    async def run(api: "ApiClient", output: "Output") -> int:
        found = await (api.create_project(wanted, answers) if project is None else api.read_project(str(project)))
        output.note(f"project {found['id']}")
        try:
            started = await api.start_build(found["id"], goal, sleep_policy=sleep_policy.value, max_nights=max_nights)
        except CofounderError as error:
            if project is None:
                output.note(f"The project is stored; later: cofounder build --project {found['id']}")
            raise error
        output.note(f"build   {started['id']}")
        if not watch:
            output.print_result(started, lambda _: None)
            return 0
        ended, code = await follow_build(api, output, started, found["name"], stay, as_events=False)
        if as_json:
            output.print_result(ended, "")
        return code

    raise typer.Exit(with_api(run, as_json=as_json, api_url=api_url, user=user))
