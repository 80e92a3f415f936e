"""`cofounder users …`: what an operator changes of a founder's account, directly in the database at DATABASE_URL."""

from typing import TYPE_CHECKING, Annotated

import typer

from console.connection import AsJson

if TYPE_CHECKING:  # the database layer takes a second to import
    from sqlalchemy.ext.asyncio import AsyncSession

    from services.accounts import Account
    from settings import Settings

users_app = typer.Typer(
    no_args_is_help=True, help="Show and change founders' accounts (in the database at DATABASE_URL)."
)

_UserId = Annotated[str, typer.Argument(metavar="USER", help="The user's id.")]


@users_app.command(
    name="set", epilog="\b\nExample: cofounder users set ada --plan partner --model coder=claude-opus-5-5"
)
def set_(
    user_id: _UserId,
    plan: Annotated[str | None, typer.Option("--plan", help="The plan's name.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="ROLE=MODEL", help="Model for a role; ROLE= takes it back. Repeatable."),
    ] = None,
    suspended: Annotated[bool | None, typer.Option("--suspended/--active", help="Whether builds are refused.")] = None,
    renewal_day: Annotated[
        int | None, typer.Option("--renewal-day", min=1, max=31, help="Day of the month on which a budget begins.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change a user; one that is new is made."""
    from console.accounts import check_user_id, in_database, parse_models, today
    from db.users import UserChange
    from services.accounts import change_account
    from settings import load_settings

    check_user_id(user_id)
    settings = load_settings()
    change = UserChange(plan, parse_models(model or [], settings.model_prices), suspended, renewal_day)

    async def run(session: "AsyncSession") -> "Account":
        return await change_account(session, user_id, change, today())

    account = in_database(settings, run)
    matters = plan is not None or renewal_day is not None or suspended is False
    _tell_and_give(settings, account, as_json, tell=matters)


@users_app.command(name="top-up", epilog="Example: cofounder users top-up ada 2.50 --note 'for the demo on Friday'")
def top_up(
    user_id: _UserId,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="In dollars, as 5 or 2.50.")],
    note: Annotated[str | None, typer.Option("--note", help="What it is for; kept with it.")] = None,
    key: Annotated[
        str | None, typer.Option("--key", help="Names this top-up: a repeat with the same key adds nothing.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add money to what a user may spend today, and wake the builds that wait for it."""
    from console.accounts import in_database, microdollars, today
    from services.accounts import top_up_account
    from settings import load_settings

    settings = load_settings()
    added = microdollars(amount)

    async def run(session: "AsyncSession") -> "Account":
        return await top_up_account(session, user_id, added, today(), note=note, key=key)

    account = in_database(settings, run)
    _tell_and_give(settings, account, as_json)


@users_app.command(epilog="Example: cofounder users show ada")
def show(user_id: _UserId, as_json: AsJson = False) -> None:
    """Show a user's account, and what may be spent today."""
    from console.accounts import as_json as to_json
    from console.accounts import in_database, print_account, today
    from console.screen import Screen
    from services.accounts import read_account
    from settings import load_settings

    async def run(session: "AsyncSession") -> "Account":
        return await read_account(session, user_id, today())

    account = in_database(load_settings(), run)
    Screen(as_json).give(to_json(account), lambda console: print_account(console, account))


def _tell_and_give(settings: "Settings", account: "Account", as_json: bool, *, tell: bool = True) -> None:
    """Tell the open builds of the change that is committed, and show the account."""
    from console.accounts import as_json as to_json
    from console.accounts import print_account, tell_builds
    from console.screen import Screen

    screen = Screen(as_json)
    told, trouble = tell_builds(settings, account.user.id) if tell and account.open_builds else ([], None)
    screen.give(
        to_json(account) | {"builds_told": told, "trouble": trouble}, lambda console: print_account(console, account)
    )
    if trouble:
        screen.note(f"The open builds were not told; the reaper tells them within a minute. ({trouble})")
    elif told:
        screen.note(f"The open builds have been told: {len(told)}.")
