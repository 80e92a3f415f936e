"""`cofounder users …`: what an operator changes of a founder's account, directly in the database at DATABASE_URL."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from console.connection import AsJson
from domain.errors import InvalidInput, NotFound

if TYPE_CHECKING:  # the database layer takes a second to import
    from sqlalchemy.ext.asyncio import AsyncSession

    from console.accounts import Account

users_app = typer.Typer(
    no_args_is_help=True, help="Show and change founders' accounts (in the database at DATABASE_URL)."
)

_UserId = Annotated[str, typer.Argument(metavar="USER", help="The user's id.")]


@users_app.command(name="set", epilog="Example: cofounder users set ada --plan partner --model coder=claude-opus-5-5")
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
    from console.accounts import check_user_id, in_database, parse_models, read_account
    from db.users import UserChange, change_user, plan_names
    from settings import load_settings

    check_user_id(user_id)
    settings = load_settings()
    change = UserChange(plan, parse_models(model or [], settings.model_prices), suspended, renewal_day)

    async def run(session: "AsyncSession") -> "Account":
        plans = await plan_names(session)
        if plan is not None and plan not in plans:
            raise InvalidInput(f"There is no plan {plan}. The plans are: {', '.join(plans)}.")
        return await read_account(session, await change_user(session, user_id, change, datetime.now(UTC).date()))

    _give(in_database(settings, run), as_json)


@users_app.command(epilog="Example: cofounder users show ada")
def show(user_id: _UserId, as_json: AsJson = False) -> None:
    """Show a user's account, and what may be spent today."""
    from console.accounts import in_database, read_account
    from db.users import find_user
    from settings import load_settings

    async def run(session: "AsyncSession") -> "Account":
        user = await find_user(session, user_id)
        if user is None:
            raise NotFound(f"There is no user {user_id}. `cofounder users set {user_id}` makes one.")
        return await read_account(session, user)

    _give(in_database(load_settings(), run), as_json)


def _give(account: "Account", as_json: bool) -> None:
    from console.accounts import print_account
    from console.screen import Screen

    Screen(as_json).give(account.as_json(), lambda console: print_account(console, account))
