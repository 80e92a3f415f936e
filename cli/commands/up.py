"""`cofounder up`, `cofounder demo` and `cofounder doctor`: what runs, or is looked at, on this machine."""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import ApiUrl, AsJson
from cli.exit_codes import DONE, NOT_DONE

if TYPE_CHECKING:
    from cli.doctor.findings import Finding

on_this_machine = typer.Typer()

_Real = Annotated[
    bool, typer.Option("--real", envvar="REAL", help="Use ANTHROPIC_API_KEY and E2B_API_KEY; costs money.")
]
_Yes = Annotated[bool, typer.Option("--yes", envvar="YES", help="With --real: do not ask.")]


@on_this_machine.command(epilog="Example: cofounder up")
def up(
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Where everything is kept; by default .cofounder/up.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=1, max=65535, help="The API's port; otherwise last time's, 8000 or a free one."),
    ] = None,
    real: _Real = False,
    yes: _Yes = False,
    as_json: AsJson = False,
) -> None:
    """Run everything on this machine until Ctrl-C: servers, API and worker. What is built is kept."""
    # Not above: the other commands need none of the embedded stack.
    from cli.output import console_for_people
    from cli.stack.programs import RealKeys
    from cli.stack.up import DATA, UpWish, run_up

    keys = RealKeys.of(os.environ) if real else RealKeys()
    wish = UpWish(data=data or DATA, port=port, keys=keys, confirmed=yes, as_json=as_json)
    asyncio.run(run_up(console_for_people(stderr=as_json), wish))


@on_this_machine.command(epilog='Example: cofounder demo --idea "A waitlist for my bakery"')
def demo(
    brief: Annotated[
        Path | None,
        typer.Option("--brief", envvar="BRIEF", metavar="FILE", help="An idea brief instead of the example."),
    ] = None,
    idea: Annotated[
        str | None, typer.Option("--idea", envvar="IDEA", help="An idea in a sentence instead of the example.")
    ] = None,
    real: _Real = False,
    leave: Annotated[
        bool, typer.Option("--exit", envvar="EXIT", help="Stop everything at the end, also in a terminal.")
    ] = False,
    yes: _Yes = False,
    as_json: AsJson = False,
) -> None:
    """Start everything on this machine and build a product, before your eyes."""
    from cli.inputs import read_brief, read_interview
    from cli.output import Screen
    from cli.stack.demo import EXAMPLES, Wish, run_demo
    from cli.stack.programs import RealKeys

    if brief is not None and idea is not None:
        raise typer.BadParameter("Give --brief (BRIEF) or --idea (IDEA), not both.")
    own = brief is not None or idea is not None
    wish = Wish(
        brief=read_brief(brief if own else EXAMPLES / "brief.json", idea) or {},
        interview=None if own else read_interview(EXAMPLES / "interview.json"),
        keys=RealKeys.of(os.environ) if real else RealKeys(),
        confirmed=yes,
        leave=leave or as_json,
    )
    screen = Screen(as_json)
    outcome = asyncio.run(run_demo(screen.people, wish))
    screen.give(outcome.as_json(), lambda _: None)
    raise typer.Exit(DONE if outcome.good else NOT_DONE)


@on_this_machine.command(epilog="Example: cofounder doctor --only api --only database")
def doctor(
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="CHECK", help="Only this check. Repeatable.")
    ] = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
) -> None:
    """Check every setting and every server, and say what to do. Spends nothing; exit code 1 when something fails."""
    from cli.doctor.checklist import CHECKS, examine, print_finding
    from cli.output import Screen

    names = [name for name, _ in CHECKS]
    if unknown := set(only or ()) - set(names):
        raise typer.BadParameter(f"No such check: {', '.join(sorted(unknown))}. There are: {', '.join(names)}.")
    screen = Screen(as_json)

    def tell(finding: "Finding") -> None:
        if not as_json:
            print_finding(screen.people, finding)

    findings = asyncio.run(examine(only or names, api_url, tell))
    good = all(each.state != "fail" for each in findings)
    screen.give({"good": good, "checks": [each.as_json() for each in findings]}, lambda _: None)
    raise typer.Exit(DONE if good else NOT_DONE)
