"""`cofounder doctor`: check every setting and every server."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from cli.exit_codes import DONE, NOT_DONE
from cli.parameters import ApiUrl, AsJson

if TYPE_CHECKING:
    from cli.doctor.check import CheckResult

app = typer.Typer()


@app.command(epilog="Example: cofounder doctor --only api --only database")
def doctor(
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="CHECK", help="Run only this check. Repeatable.")
    ] = None,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
) -> None:
    """Check every setting and server, and say how to fix problems. Costs nothing. Exit code 1 if a check fails."""
    from cli.doctor.checklist import CHECKS, print_check_result, run_checks
    from cli.output import Output

    names = [name for name, _ in CHECKS]
    if unknown := set(only or ()) - set(names):
        raise typer.BadParameter(f"No such check: {', '.join(sorted(unknown))}. Choose from: {', '.join(names)}.")
    output = Output(as_json)

    def report(result: "CheckResult") -> None:
        if not as_json:
            print_check_result(output.people, result)

    results = asyncio.run(run_checks(only or names, api_url, report))
    good = all(each.state != "fail" for each in results)
    output.print_result({"good": good, "checks": [each.as_json() for each in results]}, lambda _: None)
    raise typer.Exit(DONE if good else NOT_DONE)
