"""`cofounder up`: run everything on this machine."""

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from cli.parameters import AsJson, Real, Yes

app = typer.Typer()


@app.command(epilog="Example: cofounder up")
def up(
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Directory for data and logs. Default: .cofounder/up.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=1, max=65535, help="The API's port. Default: last time's, 8000 or a free one."),
    ] = None,
    observe: Annotated[
        bool, typer.Option("--observe", help="Show metrics of API and worker, and run Prometheus beside them.")
    ] = False,
    real: Real = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Run servers, API and worker on this machine until Ctrl-C. Builds are kept for the next start."""
    # Imported here: other commands do not need the embedded stack.
    from cli.output import console_for_people
    from cli.stack.programs import RealKeys
    from cli.stack.up import DATA, UpOptions, run_up

    keys = RealKeys.of(os.environ) if real else RealKeys()
    options = UpOptions(data=data or DATA, port=port, keys=keys, confirmed=yes, as_json=as_json, observe=observe)
    asyncio.run(run_up(console_for_people(stderr=as_json), options))
