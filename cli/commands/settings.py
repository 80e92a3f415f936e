"""`cofounder settings`: change settings of builds that run, directly in the database at DATABASE_URL."""

import asyncio
import uuid
from typing import TYPE_CHECKING, Annotated

import typer

from cli.parameters import LAST, AsJson, parse_build_id
from domain.errors import InvalidInput

if TYPE_CHECKING:  # the database layer takes a second to import
    from collections.abc import Sequence

    from db.models import Build
    from services.build_settings import Changes
    from settings import Settings

app = typer.Typer()

_NOTIFY_SECONDS = 60.0
"""Stop signalling builds after this many seconds."""


@app.command(epilog="Example: cofounder settings 3f0c… SANDBOX_MAX_SECONDS=86400")
def settings(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[BUILD] NAME=VALUE…", help="The build's id, and settings. NAME= unsets one."),
    ],
    all_builds: Annotated[bool, typer.Option("--all", help="Change all open builds.")] = False,
    as_json: AsJson = False,
) -> None:
    """Change settings of a build that runs, which otherwise keeps those that it began with.

    It takes them over before one of its next two turns.
    """
    from cli.output import Output
    from services.build_settings import parse_changes
    from settings import load_settings

    build, assignments = (None, words) if all_builds else (_build_id(words[0]), words[1:])
    if not assignments:
        raise InvalidInput("Name the settings to change: NAME=VALUE, such as SANDBOX_MAX_SECONDS=86400.")
    changes = parse_changes(assignments)
    changed, notified = asyncio.run(_change(load_settings(), build, changes))
    text = ", ".join(f"{name.upper()}={'' if value is None else value}" for name, value in changes.items())
    result = {"changes": dict(changes), "builds": [str(each.id) for each in changed], "notified": notified}
    count = f"{len(changed)} build{'' if len(changed) == 1 else 's'}"
    Output(as_json).print_result(result, f"{text} for {count}, before one of its next two turns.")


def _build_id(text: str) -> uuid.UUID:
    build = parse_build_id(text)
    if build == LAST:
        raise InvalidInput("`last` is a founder's newest build. Give the build's id; `cofounder list` shows it.")
    return uuid.UUID(build)


async def _change(settings: "Settings", build: uuid.UUID | None, changes: "Changes") -> "tuple[Sequence[Build], int]":
    """Change the rows, then signal the builds. Returns the builds, and how many were signalled."""
    from temporalio.service import RPCError

    from cli.accounts import database
    from clients.build_workflows import BuildWorkflows
    from clients.temporal import connect_temporal
    from domain.errors import CofounderError
    from services.build_settings import change_settings, notify_of_settings

    async with database(settings) as sessions:
        changed = await change_settings(sessions, build, changes)
        try:
            async with asyncio.timeout(_NOTIFY_SECONDS):
                workflows = BuildWorkflows(await connect_temporal(), settings.temporal_task_queue)
                return changed, await notify_of_settings(workflows, changed)
        except (CofounderError, RPCError, RuntimeError, TimeoutError):
            return changed, 0  # each reads its row at its next turn
