"""The `cofounder` command."""

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from console.api_client import ApiClient, ApiProblem
from console.brought import check_goal, read_brief, read_interview
from console.feed_state import describe_model, printable
from console.users import users_app
from console.watch import dollars, print_rows, watch_build
from domain.errors import CofounderError, Misconfigured
from local.cli import local_app
from local.errors import StackError
from settings import load_settings

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="An idea goes in; a running, tested product comes out.",
    epilog="Commands speak to the API at COFOUNDER_API_URL with API_TOKEN. Exit codes: 0 done, 1 not done, 2 misused.",
)
app.add_typer(local_app, name="local")
app.add_typer(users_app, name="users")

T = TypeVar("T")

_BuildId = Annotated[uuid.UUID, typer.Argument(metavar="BUILD", help="The build's id.")]
_Brief = Annotated[Path | None, typer.Option("--brief", metavar="FILE", help="An idea brief as JSON.")]
_Idea = Annotated[str | None, typer.Option("--idea", help="An idea in a sentence, instead of a brief.")]
_Interview = Annotated[Path | None, typer.Option("--interview", metavar="FILE", help="An interview as JSON.")]
_DEFAULT_GOAL = "Build the first version that the idea brief describes, with tests, and make it run."


def main() -> None:
    """Run the command line. What people can mend is one sentence on standard error."""
    try:
        app()
    except (CofounderError, StackError) as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", style="red", markup=False, highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


@app.command(epilog='Example: cofounder build --idea "A waitlist for my bakery"')
def build(
    brief: _Brief = None,
    idea: _Idea = None,
    project: Annotated[uuid.UUID | None, typer.Option("--project", help="A project that is there already.")] = None,
    interview: _Interview = None,
    goal: Annotated[str, typer.Option("--goal", help="What this build is to do.")] = _DEFAULT_GOAL,
    watch: Annotated[bool, typer.Option("--watch/--no-watch", help="Show the build until it ends.")] = True,
) -> None:
    """Start a build, of a new project or of one that is there."""
    if sum(given is not None for given in (brief, idea, project)) != 1:
        raise typer.BadParameter("Give one of --brief, --idea and --project.")
    if project is not None and interview is not None:
        raise typer.BadParameter("--interview goes with a new project.")
    check_goal(goal)
    wanted = read_brief(brief, idea)
    answers = None if interview is None else read_interview(interview)

    async def run(api: ApiClient, console: Console) -> bool:
        found = await (api.create_project(wanted, answers) if project is None else api.read_project(str(project)))
        console.print(f"project {found['id']}")
        try:
            started = await api.start_build(found["id"], goal)
        except ApiProblem as error:
            if project is not None:
                raise
            later = f"The project is stored; later: cofounder build --project {found['id']}"
            raise CofounderError(f"{error} {later}") from error
        console.print(f"build   {started['id']}")
        return await _watch(api, console, started["id"], found["name"]) if watch else True

    _exit_unless(_with_api(run))


@app.command(epilog="Example: cofounder watch 1b4e28ba-2fa1-11d2-883f-0016d3cca427")
def watch(build_id: _BuildId) -> None:
    """Show a build live, from its beginning, until it ends. Ctrl-C leaves it running."""

    async def run(api: ApiClient, console: Console) -> bool:
        found = await api.read_build(str(build_id))
        project = await api.read_project(found["project_id"])
        return await _watch(api, console, str(build_id), project["name"])

    _exit_unless(_with_api(run))


@app.command(epilog="Example: cofounder show 1b4e28ba-2fa1-11d2-883f-0016d3cca427")
def show(build_id: _BuildId) -> None:
    """Show where a build stands."""

    async def run(api: ApiClient, console: Console) -> None:
        _print_build(console, await api.read_build(str(build_id)))

    _with_api(run)


@app.command(epilog="Example: cofounder wake 1b4e28ba-2fa1-11d2-883f-0016d3cca427")
def wake(build_id: _BuildId) -> None:
    """Have a build that sleeps or waits look again whether it can go on."""

    async def run(api: ApiClient, console: Console) -> None:
        found = await api.wake(str(build_id))
        console.print(f"The build was {found['status']} and has been told to look again.")

    _with_api(run)


@app.command(epilog="Example: cofounder cancel 1b4e28ba-2fa1-11d2-883f-0016d3cca427")
def cancel(build_id: _BuildId) -> None:
    """Ask a build to end. Its workspace is kept as a snapshot."""

    async def run(api: ApiClient, console: Console) -> None:
        await api.cancel(str(build_id))
        console.print("The build has been asked to end.")

    _with_api(run)


@app.command(epilog="Example: cofounder preview 1b4e28ba-2fa1-11d2-883f-0016d3cca427 --seconds 7200")
def preview(
    build_id: _BuildId,
    seconds: Annotated[
        int | None, typer.Option("--seconds", min=60, max=86_400, help="How long it stays open from now.")
    ] = None,
) -> None:
    """Open the product of a ready build, or keep it open for longer."""

    async def run(api: ApiClient, console: Console) -> bool:
        before = (await api.open_preview(str(build_id), seconds)).get("expires_at")
        for _ in range(300):
            found = await api.read_preview(str(build_id))
            if found["state"] == "open" and found["expires_at"] != before:
                break
            if found["state"] == "failed":
                raise CofounderError(f"The preview could not be opened: {found['reason']}")
            await asyncio.sleep(0.2)
        console.print(printable(found["url"] or found["state"]))
        return bool(found["state"] == "open")

    _exit_unless(_with_api(run))


@app.command(epilog="Example: cofounder replay tests/replay/histories/ready.json")
def replay(
    history: Annotated[str, typer.Argument(metavar="BUILD|FILE", help="A build's id, or an exported history.")],
) -> None:
    """Replay a build's history against the code at hand: whether this version could go on with it."""
    is_file = Path(history).suffix == ".json" or Path(history).exists()
    build_id = "" if is_file else _build_id(history)
    # Not above: a replayer needs workflows and activities, which the other commands have no use for.
    from temporalio.service import RPCError

    from clients.temporal import connect_temporal
    from workflows.replaying import replay_build, replay_file

    async def run() -> bool:
        if is_file:
            verdict = await replay_file(Path(history))
        else:
            try:
                verdict = await replay_build(await connect_temporal(), build_id)
            except RPCError as error:
                raise CofounderError(f"The history of build {build_id} can't be read: {error.message}.") from error
        events = f"{verdict.workflow_id}: {verdict.events} events"
        if verdict.replays:
            Console(soft_wrap=True).print(f"{events}, replays", highlight=False, markup=False)
        else:
            raise CofounderError(f"{events}, does not replay: {verdict.problem}")
        return verdict.replays

    _exit_unless(asyncio.run(run()))


@app.command(epilog="Example: DATABASE_URL=postgresql://… cofounder migrate")
def migrate() -> None:
    """Bring the database at DATABASE_URL up to date. Safe to run at every start."""
    from db.migrate import migrate as bring_up_to_date

    asyncio.run(bring_up_to_date(load_settings().database_url))
    Console().print("The database is up to date.", highlight=False)


@app.command(epilog='Example: cofounder demo --idea "A waitlist for my bakery"')
def demo(
    brief: Annotated[
        Path | None,
        typer.Option("--brief", envvar="BRIEF", metavar="FILE", help="An idea brief instead of the example."),
    ] = None,
    idea: Annotated[
        str | None, typer.Option("--idea", envvar="IDEA", help="An idea in a sentence instead of the example.")
    ] = None,
    real: Annotated[
        bool, typer.Option("--real", envvar="REAL", help="Use ANTHROPIC_API_KEY and E2B_API_KEY; costs money.")
    ] = False,
    leave: Annotated[
        bool, typer.Option("--exit", envvar="EXIT", help="Stop everything at the end, also in a terminal.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", envvar="YES", help="With --real: do not ask.")] = False,
) -> None:
    """Start everything on this machine and build a product, before your eyes."""
    # Not above: the other commands need none of the embedded stack.
    import os

    from console.demo import EXAMPLES, GOAL, RealKeys, Wish, run_demo

    if brief is not None and idea is not None:
        raise typer.BadParameter("Give --brief (BRIEF) or --idea (IDEA), not both.")
    own = brief is not None or idea is not None
    wish = Wish(
        brief=read_brief(brief if own else EXAMPLES / "brief.json", idea) or {},
        interview=None if own else read_interview(EXAMPLES / "interview.json"),
        goal=GOAL,
        keys=RealKeys.of(os.environ) if real else RealKeys(),
        confirmed=yes,
        leave=leave,
    )
    _exit_unless(asyncio.run(run_demo(Console(soft_wrap=True, highlight=False), wish)))


# ---- speaking to the API


@asynccontextmanager
async def _open_api() -> AsyncIterator[ApiClient]:
    settings = load_settings()
    if settings.api_token is None:
        raise Misconfigured("API_TOKEN is not set. Set it to the token that the API was started with.")
    async with ApiClient(settings.cofounder_api_url, settings.api_token.get_secret_value()) as api:
        yield api


def _with_api(run: Callable[[ApiClient, Console], Awaitable[T]]) -> T:
    async def opened() -> T:
        async with _open_api() as api:
            return await run(api, Console(soft_wrap=True, highlight=False, markup=False))

    return asyncio.run(opened())


async def _watch(api: ApiClient, console: Console, build_id: str, product: str) -> bool:
    try:
        state = await watch_build(console, api, build_id, product)
    except asyncio.CancelledError:
        console.print(f"\nThe build goes on. To see it again: cofounder watch {build_id}")
        raise
    _print_build(console, await api.read_build(build_id))
    return state.status == "ready"


def _print_build(console: Console, found: dict[str, Any]) -> None:
    rows: dict[str, object] = {
        "build": found["id"],
        "project": found["project_id"],
        "status": found["status"] + (f" ({found['waiting_for']})" if found["waiting_for"] else ""),
        "why": found["reason"],
        "wakes at": found["wakes_at"],
        "model": describe_model(found["model_label"]) if found["model_label"] else None,
        "cost": dollars(found["cost_microdollars"]),
        "phases": str(found["phases_completed"]),
        "version": found["build_version"],
        "preview": found["preview_url"],
    }
    print_rows(console, ((name, str(value)) for name, value in rows.items() if value is not None))


def _build_id(text: str) -> str:
    try:
        return str(uuid.UUID(text.removeprefix("build-")))
    except ValueError:
        raise typer.BadParameter(f"{text} is neither a file nor a build's id.") from None


def _exit_unless(good: bool) -> None:
    if not good:
        raise typer.Exit(1)
