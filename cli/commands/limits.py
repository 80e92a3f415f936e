"""`cofounder limits …`: limit what all builds together spend in a day, in the database at DATABASE_URL."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.parameters import AsJson

if TYPE_CHECKING:  # the database layer takes a second to import
    from db.limits import FleetSpending
    from db.models import Limit
    from db.transaction import Transaction

app = typer.Typer(
    no_args_is_help=True, help="Limit what all builds together spend in a UTC day (in the database at DATABASE_URL)."
)


@app.command(name="set", epilog="Example: cofounder limits set fleet_day 200")
def set_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="fleet_day: dollars a UTC day, all builds together.")],
    value: Annotated[str, typer.Argument(metavar="AMOUNT", help="In dollars, e.g. 200; `none` removes the limit.")],
    as_json: AsJson = False,
) -> None:
    """Set a limit. It holds at once; builds that sleep because of it are notified."""
    from cli.accounts import in_database, today
    from cli.operations import limit_json, notify_waiting_builds, outcome, parse_limit, print_limit
    from cli.output import Output
    from domain.errors import InvalidInput
    from domain.limits import LimitName
    from services.switches import set_limit
    from settings import load_settings

    if name not in set(LimitName):
        raise InvalidInput(f"There is no limit {name}. The limits are: {', '.join(LimitName)}.")
    amount, settings = parse_limit(value), load_settings()

    async def run(tx: "Transaction") -> "tuple[Limit, FleetSpending]":
        return await set_limit(tx, LimitName(name), amount, today())

    limit, spending = in_database(settings, run)
    notified, trouble = notify_waiting_builds(settings)
    output = Output(as_json)
    output.print_result(
        limit_json(limit, spending) | {"builds_notified": notified, "trouble": trouble},
        lambda console: print_limit(console, limit, spending),
    )
    output.note(outcome(notified, trouble))


@app.command(name="list", epilog="Example: cofounder limits list")
def list_(as_json: AsJson = False) -> None:
    """Show the limits, and how much of them is used today."""
    from cli.accounts import in_database, today
    from cli.operations import limit_json, print_limit
    from cli.output import Output
    from db.limits import find_limit, fleet_spending
    from domain.limits import LimitName
    from settings import load_settings

    async def run(tx: "Transaction") -> "tuple[Limit | None, FleetSpending]":
        return await find_limit(tx, LimitName.FLEET_DAY), await fleet_spending(tx, today())

    limit, spending = in_database(load_settings(), run)
    Output(as_json).print_result(
        {"limits": [limit_json(limit, spending)]}, lambda console: print_limit(console, limit, spending)
    )
