"""`cofounder migrate`: migrate the database to this version."""

import asyncio

import typer

from cli.exit_codes import Unreachable
from cli.parameters import AsJson
from domain.errors import Misconfigured, WrongNamespace

app = typer.Typer()

_TEMPORAL_SECONDS = 10.0
"""Leave binding the database to the first worker if Temporal does not answer within this many seconds."""


@app.command(epilog="Example: cofounder migrate")
def migrate(as_json: AsJson = False) -> None:
    """Migrate the database at DATABASE_URL to this version. Safe to run at every start.

    A new database is bound to the Temporal namespace that the environment names, if that answers.
    """
    from cli.output import Output
    from db.migrate import migrate as migrate_database
    from settings import load_settings

    settings = load_settings()
    try:
        asyncio.run(migrate_database(settings.database_url))
    except Misconfigured as error:
        raise (Unreachable(str(error)) if isinstance(error.__cause__, OSError) else error) from error
    bound = asyncio.run(_bind(settings.database_url, settings.temporal_task_queue))
    unbound = " Temporal does not answer, so the first worker binds it to its namespace."
    Output(as_json).print_result(
        {"migrated": True, "bound": bound}, "The database is up to date." + ("" if bound else unbound)
    )


async def _bind(database_url: str, task_queue: str) -> bool:
    """Bind the database to Temporal's namespace, if it may be bound. Return False if Temporal does not answer.

    Raises:
        WrongNamespace: the database is migrated, and its builds are in another namespace.
    """
    from temporalio.service import RPCError

    from clients.build_workflows import BuildWorkflows
    from clients.temporal import connect_temporal
    from db.session import open_sessions
    from services.deployment import check_deployment

    try:
        async with asyncio.timeout(_TEMPORAL_SECONDS), open_sessions(database_url, pool_size=1) as sessions:
            client = await connect_temporal(lazy=True)
            await check_deployment(sessions, BuildWorkflows(client, task_queue))
    except WrongNamespace:
        raise
    except (Misconfigured, RPCError, TimeoutError):
        return False
    return True
