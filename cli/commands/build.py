"""`cofounder build`: start a build."""

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.commands.watch import Stay, follow_build
from cli.connection import resolve_build_id, resolve_organisation, with_api
from cli.exit_codes import WATCH_EXIT_CODES
from cli.parameters import ApiUrl, AsJson, User, parse_start
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
    project: Annotated[uuid.UUID | None, typer.Option("--project", help="An existing project.")] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="BUILD[:SNAPSHOT]",
            help="Begin with what this build has made, or with one of its snapshots. By default a build begins with "
            "its project's newest version.",
        ),
    ] = None,
    interview: Annotated[Path | None, typer.Option("--interview", metavar="FILE", help="An interview as JSON.")] = None,
    org: Annotated[
        str | None,
        typer.Option(
            "--org", metavar="ORGANISATION", help="Whose the new project is: an id or a name. Default: yours."
        ),
    ] = None,
    goal: Annotated[str, typer.Option("--goal", help="What this build should do.")] = FIRST_GOAL,
    sleep_policy: Annotated[
        SleepPolicy,
        typer.Option("--sleep-policy", help="When today's allowance is used up: sleep until it refreshes, or stop."),
    ] = SleepPolicy.SLEEP,
    max_nights: Annotated[
        int, typer.Option("--max-nights", min=0, max=1000, help="Ask you after the build has slept this many nights.")
    ] = MAX_NIGHTS,
    watch: Annotated[
        bool, typer.Option("--watch/--no-watch", help="Show the build until it ends, or return at once.")
    ] = True,
    stay: Stay = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Start a build of a new or an existing project.

    With --json it waits silently and prints the build at its end; with --no-watch, at its start.
    """
    from cli.inputs import check_goal, read_brief, read_interview
    from domain.build_options import BuildOptions

    is_new = brief is not None or idea is not None
    if is_new and start is not None:
        raise typer.BadParameter("--from needs an existing project. Leave --brief and --idea out.")
    if start is None and sum(source is not None for source in (brief, idea, project)) != 1:
        raise typer.BadParameter("Give one of --brief, --idea, --project and --from.")
    chosen = None if start is None else parse_start(start)
    if not is_new and interview is not None:
        raise typer.BadParameter("--interview needs a new project: give it with --brief or --idea.")
    if not is_new and org is not None:
        raise typer.BadParameter("--org needs a new project. To move this one: cofounder orgs move")
    check_goal(goal)
    options = BuildOptions(sleep_policy=sleep_policy, max_nights=max_nights)
    content = read_brief(brief, idea)
    answers = None if interview is None else read_interview(interview)

    async def run(api: "ApiClient", output: "Output") -> int:
        project_id = None if project is None else str(project)
        start_from: dict[str, Any] | None = None
        if chosen is not None:
            start_from = {"build_id": await resolve_build_id(api, chosen[0]), "snapshot": chosen[1]}
            project_id = project_id or (await api.read_build(start_from["build_id"]))["project_id"]
        if project_id is None:
            org_id = None if org is None else await resolve_organisation(api, org)
            target = await api.create_project(content, answers, organisation_id=org_id)
        else:
            target = await api.read_project(project_id)
        output.note(f"project {target['id']}")
        try:
            started = await api.start_build(target["id"], goal, options, start_from)
        except CofounderError as error:
            if is_new:
                output.note(f"The project is stored. To build it later: cofounder build --project {target['id']}")
            raise error
        output.note(f"build   {started['id']}")
        if not watch:
            output.print_result(started, lambda _: None)
            return 0
        ended, code = await follow_build(api, output, started, target["name"], stay, as_events=False)
        if as_json:
            output.print_result(ended, "")
        return code

    raise typer.Exit(with_api(run, as_json=as_json, api_url=api_url, user=user))
