"""`cofounder replay`: check that this version can continue a build."""

import asyncio
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import resolve_build_id, with_api
from cli.exit_codes import DONE, NOT_DONE, Unreachable
from cli.parameters import LAST, ApiUrl, AsJson, User
from domain.errors import CofounderError, Misconfigured

if TYPE_CHECKING:
    from cli.replay import ReplayResult

app = typer.Typer()


@app.command(epilog="Example: cofounder replay tests/replay/histories/ready-build-1.json")
def replay(
    history: Annotated[
        str, typer.Argument(metavar="BUILD|FILE", help=f"A build's id, `{LAST}`, or an exported history file.")
    ],
    as_json: AsJson = False,
    api_url: ApiUrl = None,
    user: User = None,
) -> None:
    """Replay a build's history with this version's workflows, to check that it can continue the build."""
    from cli.output import Output

    is_file = Path(history).suffix == ".json" or Path(history).exists()
    build_id = "" if is_file or history == LAST else _build_id(history)
    if history == LAST and not is_file:
        build_id = with_api(lambda api, _: resolve_build_id(api, LAST), as_json=as_json, api_url=api_url, user=user)
    result = asyncio.run(_replay(history, build_id))
    document = {
        "workflow_id": result.workflow_id,
        "events": result.events,
        "replays": result.replays,
        "problem": result.problem,
    }
    events = f"{result.workflow_id}: {result.events} events"
    if not result.replays and not as_json:
        raise CofounderError(f"{events}, does not replay: {result.problem}")
    Output(as_json).print_result(document, f"{events}, replays")
    raise typer.Exit(DONE if result.replays else NOT_DONE)


async def _replay(history: str, build_id: str) -> "ReplayResult":
    # Imported here: it loads workflows and activities, which other commands do not need.
    from temporalio.service import RPCError

    from cli.replay import replay_build, replay_file
    from clients.temporal import connect_temporal, temporal_config

    if not build_id:
        return await replay_file(Path(history))
    temporal_config()  # raises if the configuration is wrong, which must not count as "Temporal does not answer"
    try:
        client = await connect_temporal()
    except Misconfigured as error:
        raise Unreachable(str(error)) from error
    try:
        return await replay_build(client, build_id)
    except RPCError as error:
        raise CofounderError(f"The history of build {build_id} can't be read: {error.message}.") from error


def _build_id(text: str) -> str:
    try:
        return str(uuid.UUID(text.removeprefix("build-")))
    except ValueError:
        raise typer.BadParameter(f"{text} is neither an existing file nor a build's id.") from None
