"""`cofounder migrate`: migrate the database to this version."""

import asyncio

import typer

from cli.exit_codes import Unreachable
from cli.parameters import AsJson
from domain.errors import LostPayloadKey, Misconfigured, WrongNamespace

app = typer.Typer()

_NO_ROLE = (
    "DATABASE_URL's user may not make the API's database user. As a user who may, run this with a password of your "
    "choice, then run `cofounder migrate` again without API_DATABASE_PASSWORD:"
)

_TEMPORAL_SECONDS = 10.0
"""Leave binding the database to the first worker if Temporal does not answer within this many seconds."""


@app.command(epilog="Example: cofounder migrate")
def migrate(as_json: AsJson = False) -> None:
    """Migrate the database at DATABASE_URL to this version. Safe to run at every start.

    Makes the API's database user, `cofounder_api`, or prints the SQL with which someone else can make it. A new
    database is bound to the Temporal namespace that the environment names, if that answers.
    """
    from cli.output import Output
    from db.migrate import migrate as migrate_database
    from settings import load_settings, secret_text

    settings = load_settings()
    try:
        role = asyncio.run(migrate_database(settings.database_url, secret_text(settings.api_database_password)))
    except Misconfigured as error:
        raise (Unreachable(str(error)) if isinstance(error.__cause__, OSError) else error) from error
    bound = asyncio.run(_bind(settings.database_url, settings.temporal_task_queue))
    unbound = " Temporal does not answer, so the first worker binds it to its namespace."
    statements = [f"{each};" for each in role.statements]
    lines = ["The database is up to date." + ("" if bound else unbound)]
    if statements:
        lines += [_NO_ROLE, *(f"  {each}" for each in statements)]
    Output(as_json).print_result({"migrated": True, "bound": bound, "sql": statements}, "\n".join(lines))


async def _bind(database_url: str, task_queue: str) -> bool:
    """Bind the database to Temporal's namespace, if it may be bound. Return False if Temporal does not answer.

    Raises:
        WrongNamespace: the database is migrated, and its builds are in another namespace.
        LostPayloadKey: the database is migrated, and PAYLOAD_KEY lacks a key that builds have used.
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
    except (WrongNamespace, LostPayloadKey):
        raise
    except (Misconfigured, RPCError, TimeoutError):
        return False
    return True
