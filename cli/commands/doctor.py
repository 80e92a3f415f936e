"""`cofounder doctor`: check every setting and every server; with `--paid`, ask real services what tests can't show."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from cli.exit_codes import DONE, NOT_DONE
from cli.parameters import ApiUrl, AsJson

if TYPE_CHECKING:
    from checks.check import CheckResult
    from cli.doctor.paid import Verdict

_MOST_DOLLARS = 20
"""A larger cap is probably a mistake: all questions together cost cents."""

app = typer.Typer()


@app.command(epilog="Example: cofounder doctor --only api --only database")
def doctor(
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="CHECK", help="Run only this check. Repeatable.")
    ] = None,
    paid: Annotated[
        bool, typer.Option("--paid", help="Ask the real APIs what docs/vendors.md assumes. Costs money, up to --cap.")
    ] = False,
    cap: Annotated[
        float | None, typer.Option("--cap", metavar="USD", help="With --paid: what it may cost at most, such as 0.50.")
    ] = None,
    stand_ins: Annotated[bool, typer.Option("--stand-ins", hidden=True)] = False,
    as_json: AsJson = False,
    api_url: ApiUrl = None,
) -> None:
    """Check every setting and server, and say how to fix problems. Exit code 1 if a check fails.

    Costs nothing without --paid.
    """
    if paid or cap is not None or stand_ins:
        _ask_for_money(paid, cap, only, as_json, stand_ins=stand_ins)
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


def _ask_for_money(paid: bool, cap: float | None, only: list[str] | None, as_json: bool, *, stand_ins: bool) -> None:
    from cli.doctor.paid import dollars, print_verdict
    from cli.doctor.paid_run import as_document, ask_services, is_good, microdollars
    from cli.output import Output
    from settings import load_settings

    if not paid:
        raise typer.BadParameter("--cap is the limit of --paid, which asks the real APIs. Add --paid.")
    if only:
        raise typer.BadParameter("--only names checks that cost nothing. Leave it out with --paid.")
    if cap is None or not 0 < cap < _MOST_DOLLARS:
        raise typer.BadParameter(
            f"--paid spends real money. Say how much at most, below ${_MOST_DOLLARS}, such as: --paid --cap 0.50."
        )
    output = Output(as_json)

    def report(verdict: "Verdict") -> None:
        if not as_json:
            print_verdict(output.people, verdict)

    settings = load_settings()
    output.note(f"Asking the real services that have a key. This costs ${cap:.2f} at most.")
    verdicts, purse = asyncio.run(ask_services(settings, microdollars(cap), report, stand_ins=stand_ins))
    states = [verdict.state for verdict in verdicts]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("held", "not held", "not asked"))
    summary = f"{counts}. It cost {dollars(purse.spent)} at most, of {dollars(purse.cap)}."
    output.print_result(as_document(verdicts, purse), summary)
    raise typer.Exit(DONE if is_good(verdicts) else NOT_DONE)
