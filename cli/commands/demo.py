"""`cofounder demo`: build a product on this machine."""

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from cli.exit_codes import DONE, NOT_DONE
from cli.parameters import AsJson, Real, Yes

app = typer.Typer()


@app.command(epilog='Example: cofounder demo --idea "A waitlist for my bakery"')
def demo(
    brief: Annotated[
        Path | None,
        typer.Option("--brief", envvar="BRIEF", metavar="FILE", help="Your idea brief, instead of the example."),
    ] = None,
    idea: Annotated[
        str | None, typer.Option("--idea", envvar="IDEA", help="Your idea in a sentence, instead of the example.")
    ] = None,
    real: Real = False,
    leave: Annotated[
        bool, typer.Option("--exit", envvar="EXIT", help="Stop everything when the build ends, also in a terminal.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Start everything on this machine and build a product while you watch."""
    from cli.inputs import read_brief, read_interview
    from cli.output import Output
    from cli.stack.demo import EXAMPLES, DemoOptions, run_demo
    from cli.stack.programs import RealKeys

    if brief is not None and idea is not None:
        raise typer.BadParameter("Give --brief (BRIEF) or --idea (IDEA), not both.")
    own = brief is not None or idea is not None
    options = DemoOptions(
        brief=read_brief(brief if own else EXAMPLES / "brief.json", idea) or {},
        interview=None if own else read_interview(EXAMPLES / "interview.json"),
        keys=RealKeys.of(os.environ) if real else RealKeys(),
        confirmed=yes,
        leave=leave or as_json,
    )
    output = Output(as_json)
    result = asyncio.run(run_demo(output.people, options))
    output.print_result(result.as_json(), lambda _: None)
    raise typer.Exit(DONE if result.good else NOT_DONE)
