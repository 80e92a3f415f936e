"""`cofounder migrate`: migrate the database to this version."""

import asyncio

import typer

from cli.exit_codes import Unreachable
from cli.parameters import AsJson
from domain.errors import Misconfigured

app = typer.Typer()


@app.command(epilog="Example: cofounder migrate")
def migrate(as_json: AsJson = False) -> None:
    """Migrate the database at DATABASE_URL to this version. Safe to run at every start."""
    from cli.output import Output
    from db.migrate import migrate as migrate_database
    from settings import load_settings

    settings = load_settings()
    try:
        asyncio.run(migrate_database(settings.database_url))
    except Misconfigured as error:
        raise (Unreachable(str(error)) if isinstance(error.__cause__, OSError) else error) from error
    Output(as_json).print_result({"migrated": True}, "The database is up to date.")
