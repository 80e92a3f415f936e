"""`cofounder switch …`: switch builds off and on while everything runs, in the database at DATABASE_URL."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.parameters import AsJson

if TYPE_CHECKING:  # the database layer takes a second to import
    from db.models import Switch
    from db.transaction import Transaction

app = typer.Typer(no_args_is_help=True, help="Switch builds off and on at once (in the database at DATABASE_URL).")

_User = Annotated[str | None, typer.Option("--user", help="Only builds of this user.")]
_Plan = Annotated[str | None, typer.Option("--plan", help="Only builds on this plan.")]
_Model = Annotated[str | None, typer.Option("--model", help="Only builds with this model.")]


@app.command(epilog='Example: cofounder switch off --model claude-opus-5-5 --reason "too expensive today"')
def off(
    reason: Annotated[str, typer.Option("--reason", help="Why, for other operators.")],
    user: _User = None,
    plan: _Plan = None,
    model: _Model = None,
    as_json: AsJson = False,
) -> None:
    """Let builds make no more model calls, and start no new ones. Their work is kept, and they wait."""
    from cli.accounts import in_database
    from cli.operations import parse_scope, switch_json, what
    from cli.output import Output
    from services.switches import switch_off
    from settings import load_settings

    scope, key = parse_scope(user, plan, model)
    settings = load_settings()

    async def run(tx: "Transaction") -> "Switch":
        return await switch_off(tx, scope, key, reason, settings.model_prices)

    switch = in_database(settings, run)
    note = f"Off: {what(scope, key)}. Builds stop before their next model call; a call in progress ends first."
    Output(as_json).print_result(switch_json(switch), note)


@app.command(epilog="Example: cofounder switch on --model claude-opus-5-5")
def on(user: _User = None, plan: _Plan = None, model: _Model = None, as_json: AsJson = False) -> None:
    """Switch builds on again, and notify those that wait."""
    from cli.accounts import in_database
    from cli.operations import notify_waiting_builds, outcome, parse_scope, what
    from cli.output import Output
    from services.switches import switch_on
    from settings import load_settings

    scope, key = parse_scope(user, plan, model)
    settings = load_settings()

    async def run(tx: "Transaction") -> bool:
        return await switch_on(tx, scope, key)

    was_off = in_database(settings, run)
    notified, trouble = notify_waiting_builds(settings)
    document = {"scope": scope, "key": key or None, "was_off": was_off, "builds_notified": notified, "trouble": trouble}
    before = "" if was_off else " It was not off."
    Output(as_json).print_result(document, f"On: {what(scope, key)}.{before} {outcome(notified, trouble)}")


@app.command(name="list", epilog="Example: cofounder switch list")
def list_(as_json: AsJson = False) -> None:
    """Show what is off, since when, and why."""
    from cli.accounts import in_database
    from cli.operations import print_switches, switch_json
    from cli.output import Output
    from db.switches import list_switches
    from settings import load_settings

    settings = load_settings()
    switches = in_database(settings, list_switches)
    document = {
        "autonomous_agent": settings.autonomous_agent,
        "off": [switch_json(switch) for switch in switches],
    }
    Output(as_json).print_result(
        document, lambda console: print_switches(console, switches, autonomous_agent=settings.autonomous_agent)
    )
