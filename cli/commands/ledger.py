"""`cofounder ledger …`: compare the totals of days with the ledger's rows, and correct them, at DATABASE_URL."""

from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.exit_codes import DONE, NOT_DONE
from cli.parameters import AsJson

if TYPE_CHECKING:  # the database layer takes a second to import
    from collections.abc import Awaitable, Callable, Sequence

    from rich.console import Console

    from db.drift import Drift
    from db.session import Sessions

app = typer.Typer(
    no_args_is_help=True,
    help="Compare the totals of days with the ledger's rows (in the database at DATABASE_URL).",
)

_Since = Annotated[
    str | None, typer.Option("--since", metavar="DAY", help="The first day, such as 2026-11-01; yesterday by default.")
]


@app.command(epilog="Example: cofounder ledger check --since 2026-11-01")
def check(since: _Since = None, as_json: AsJson = False) -> None:
    """List totals that are not the sum of their rows. Exit code 1 if there are any."""
    from cli.output import Output
    from services.ledger import find_drifts

    first = _first_day(since)

    async def run(sessions: "Sessions") -> "Sequence[Drift]":
        return await find_drifts(sessions, first)

    found = _with_database(run)
    Output(as_json).print_result(_as_json(first, found), lambda console: _print_drifts(console, found, first))
    raise typer.Exit(NOT_DONE if found else DONE)


@app.command(epilog="Example: cofounder ledger correct --yes")
def correct(
    since: _Since = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, only what would change is shown.")] = False,
    as_json: AsJson = False,
) -> None:
    """Set each total that is wrong to the sum of its rows. Builds may go on meanwhile."""
    from cli.output import Output
    from services.ledger import correct_drifts, find_drifts

    first = _first_day(since)

    async def run(sessions: "Sessions") -> "Sequence[Drift]":
        return await (correct_drifts(sessions, first) if yes else find_drifts(sessions, first))

    found = _with_database(run)
    output = Output(as_json)
    document = {**_as_json(first, found), "corrected": yes and bool(found)}
    output.print_result(document, lambda console: _print_drifts(console, found, first))
    if found:
        output.note("Corrected." if yes else "Nothing was changed; add --yes to correct them.")


def _first_day(since: str | None) -> date:
    from datetime import timedelta

    from cli.accounts import today
    from domain.errors import InvalidInput

    if since is None:
        return today() - timedelta(days=1)
    try:
        return date.fromisoformat(since)
    except ValueError:
        raise InvalidInput(f"{since!r} is not a day. Write it as 2026-11-01.") from None


def _with_database(run: "Callable[[Sessions], Awaitable[Sequence[Drift]]]") -> "Sequence[Drift]":
    import asyncio

    from cli.accounts import database
    from settings import load_settings

    async def opened() -> "Sequence[Drift]":
        async with database(load_settings()) as sessions:
            return await run(sessions)

    return asyncio.run(opened())


def _as_json(first: date, found: "Sequence[Drift]") -> dict[str, Any]:
    return {
        "since": str(first),
        "drifts": [
            {
                "day": str(each.day),
                "whose": each.whose,
                "spent_microdollars": each.spent,
                "reserved_microdollars": each.reserved,
                "spent_sum_microdollars": each.spent_sum,
                "reserved_sum_microdollars": each.reserved_sum,
            }
            for each in found
        ],
    }


def _print_drifts(console: "Console", found: "Sequence[Drift]", first: date) -> None:
    from cli.output import print_table

    if not found:
        console.print(f"Every total since {first} is the sum of its rows.")
        return
    rows = [
        (
            str(each.day),
            each.whose,
            *(str(amount) for amount in (each.spent, each.spent_sum, each.reserved, each.reserved_sum)),
        )
        for each in found
    ]
    names = ("day", "whose", "spent: total µ$", "sum of the rows", "reserved: total µ$", "sum of the rows")
    print_table(console, names, rows)
