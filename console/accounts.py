"""Founders' accounts as operators see them: read from the database, in dollars."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import asyncpg
from rich.console import Console
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from console.exits import Unreachable
from console.screen import dollars, print_rows
from db.models import User
from db.money import budget_of
from db.session import make_engine, make_sessions
from domain.errors import InvalidInput, Misconfigured
from domain.model_choice import CODER
from domain.pricing import PriceTable, price_of
from settings import Settings

ROLES = (CODER,)

T = TypeVar("T")


@dataclass(frozen=True)
class Account:
    """A user's account today. Money is in microdollars; an allowance of None is unlimited."""

    user: str
    plan: str
    models: dict[str, str]
    suspended: bool
    renewal_day: int
    allowance_microdollars: int | None
    spent_microdollars: int

    def as_json(self) -> dict[str, Any]:
        """The account for scripts."""
        return asdict(self)


async def read_account(session: AsyncSession, user: User) -> Account:
    """The account, with what the user may spend and has spent on this UTC day."""
    budget = await budget_of(session, user.id, datetime.now(UTC).date())
    return Account(
        user=user.id,
        plan=user.plan,
        models={role: str(model) for role, model in user.model_overrides.items()},
        suspended=user.suspended,
        renewal_day=user.renewal_day,
        allowance_microdollars=budget.allowance,
        spent_microdollars=budget.spent,
    )


def print_account(console: Console, account: Account) -> None:
    """The account in rows."""
    allowance = account.allowance_microdollars
    rows = {
        "user": account.user,
        "plan": account.plan,
        "models": ", ".join(f"{role}={model}" for role, model in account.models.items()) or "the plan's",
        "account": "suspended" if account.suspended else "active",
        "renewal day": str(account.renewal_day),
        "allowance": "unlimited" if allowance is None else f"{dollars(allowance)} today",
        "spent": f"{dollars(account.spent_microdollars)} today",
    }
    print_rows(console, rows.items())


def check_user_id(user_id: str) -> None:
    """Look at a user's id before a row is made with it.

    Raises:
        InvalidInput: the API would not take it.
    """
    if not 1 <= len(user_id) <= 200 or not all("!" <= character <= "~" for character in user_id):
        raise InvalidInput("A user's id is 1 to 200 printable ASCII characters without a space.")


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


def in_database(settings: Settings, run: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """Run in a transaction of the database at DATABASE_URL.

    Raises:
        Unreachable: it does not answer.
        Misconfigured: it can't be used as it is; says what to do.
    """

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
    except OSError as error:
        raise Unreachable(
            f"The database does not answer. Check that DATABASE_URL names a PostgreSQL that runs. ({error})"
        ) from error
    except (DBAPIError, asyncpg.PostgresError) as error:
        raise Misconfigured(
            "The database can't be used. Check DATABASE_URL, and that `cofounder migrate` was run. "
            f"({str(error).splitlines()[0]})"
        ) from error
    finally:
        await engine.dispose()
