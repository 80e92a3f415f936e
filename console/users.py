"""`cofounder users …`: what an operator changes of a founder's account, directly in the database."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import asyncpg
import typer
from rich.console import Console
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from console.watch import dollars, print_rows
from db.models import User
from db.session import make_engine, make_sessions
from db.users import UserChange, budget_today, change_user, find_user, plan_names
from domain.errors import InvalidInput, Misconfigured, NotFound
from domain.model_choice import CODER
from domain.pricing import PriceTable, price_of
from settings import Settings, load_settings

users_app = typer.Typer(
    no_args_is_help=True, help="Show and change founders' accounts (in the database at DATABASE_URL)."
)

ROLES = (CODER,)

T = TypeVar("T")

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
) -> None:
    """Change a user; one that is new is made."""
    if not 1 <= len(user_id) <= 200 or not user_id.isascii() or not user_id.isprintable() or " " in user_id:
        raise InvalidInput("A user's id is 1 to 200 printable ASCII characters without a space.")
    settings = load_settings()
    change = UserChange(plan, parse_models(model or [], settings.model_prices), suspended, renewal_day)

    async def run(session: AsyncSession) -> None:
        plans = await plan_names(session)
        if plan is not None and plan not in plans:
            raise InvalidInput(f"There is no plan {plan}. The plans are: {', '.join(plans)}.")
        await _print(session, await change_user(session, user_id, change))

    _in_database(settings, run)


@users_app.command(epilog="Example: cofounder users show ada")
def show(user_id: _UserId) -> None:
    """Show a user's account, and what may be spent today."""

    async def run(session: AsyncSession) -> None:
        user = await find_user(session, user_id)
        if user is None:
            raise NotFound(f"There is no user {user_id}. `cofounder users set {user_id}` makes one.")
        await _print(session, user)

    _in_database(load_settings(), run)


def parse_models(given: list[str], prices: PriceTable) -> dict[str, str | None]:
    """Overrides by role from `ROLE=MODEL`; None takes one back.

    Raises:
        InvalidInput: not of that form, or no such role.
        UnknownModel: the model has no price.
    """
    models: dict[str, str | None] = {}
    for each in given:
        role, equals, model = (part.strip() for part in each.partition("="))
        if not equals or role not in ROLES:
            raise InvalidInput(f"{each} is not of the form ROLE=MODEL with one of these roles: {', '.join(ROLES)}.")
        if model:
            price_of(prices, model)
        models[role] = model or None
    return models


def _in_database(settings: Settings, run: Callable[[AsyncSession], Awaitable[T]]) -> T:
    async def opened() -> T:
        async with _transaction(settings) as session:
            return await run(session)

    return asyncio.run(opened())


@asynccontextmanager
async def _transaction(settings: Settings) -> AsyncIterator[AsyncSession]:
    engine = make_engine(settings.database_url, pool_size=1)
    try:
        async with make_sessions(engine).begin() as session:
            yield session
    except (OSError, DBAPIError, asyncpg.PostgresError) as error:
        raise Misconfigured(
            "The database can't be used. Check that DATABASE_URL names a PostgreSQL that runs, and that `cofounder "
            f"migrate` was run. ({str(error).splitlines()[0]})"
        ) from error
    finally:
        await engine.dispose()


async def _print(session: AsyncSession, user: User) -> None:
    budget = await budget_today(session, user, datetime.now(UTC).date())
    allowance = "unlimited" if budget.allowance is None else dollars(budget.allowance)
    models = ", ".join(f"{role}={model}" for role, model in user.model_overrides.items())
    rows = {
        "user": user.id,
        "plan": user.plan,
        "models": models or "the plan's",
        "account": "suspended" if user.suspended else "active",
        "renewal day": str(user.renewal_day),
        "today": f"{dollars(budget.spent)} spent of {allowance}",
    }
    print_rows(Console(highlight=False), rows.items())
