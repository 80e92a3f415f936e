"""Founders' accounts as operators see them: read from the database, in dollars."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

import asyncpg
from rich.console import Console
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from temporalio.service import RPCError

from clients.build_workflows import BuildWorkflows
from clients.temporal import connect_temporal
from console.exits import Unreachable
from console.screen import dollars, print_rows
from db.models import TopUp, User
from db.money import budget_of, open_builds_of
from db.session import make_engine, make_sessions
from db.users import find_user
from domain.errors import CofounderError, InvalidInput, Misconfigured, NotFound
from domain.model_choice import CODER
from domain.pricing import PriceTable, price_of
from settings import Settings

ROLES = (CODER,)

_MOST_MICRODOLLARS = 10**12
_TELL_SECONDS = 20.0

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
    reserved_microdollars: int
    topped_up_microdollars: int
    open_builds: list[str]

    def as_json(self) -> dict[str, Any]:
        """The account for scripts."""
        return asdict(self)


def today() -> date:
    """The UTC day, which allowances are for."""
    return datetime.now(UTC).date()


async def read_account(session: AsyncSession, user: User) -> Account:
    """The account, with what the user may spend, has spent and was topped up on this UTC day."""
    topped_up = await session.scalar(
        select(func.coalesce(func.sum(TopUp.amount), 0)).where(TopUp.user_id == user.id, TopUp.day == today())
    )
    budget = await budget_of(session, user.id, today())
    return Account(
        user=user.id,
        plan=user.plan,
        models={role: str(model) for role, model in user.model_overrides.items()},
        suspended=user.suspended,
        renewal_day=user.renewal_day,
        allowance_microdollars=budget.allowance,
        spent_microdollars=budget.spent,
        reserved_microdollars=budget.reserved,
        topped_up_microdollars=int(topped_up or 0),
        open_builds=[str(build_id) for build_id in await open_builds_of(session, user.id)],
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
        "reserved": f"{dollars(account.reserved_microdollars)} for calls that are being made",
        "top-ups": f"{dollars(account.topped_up_microdollars)} today",
        "open builds": ", ".join(account.open_builds) or "none",
    }
    print_rows(console, rows.items())


def check_user_id(user_id: str) -> None:
    """Look at a user's id before a row is made with it.

    Raises:
        InvalidInput: the API would not take it.
    """
    if not 1 <= len(user_id) <= 200 or not all("!" <= character <= "~" for character in user_id):
        raise InvalidInput("A user's id is 1 to 200 printable ASCII characters without a space.")


def microdollars(text: str) -> int:
    """An amount in dollars, as `5`, `2.50` or `$2.50`.

    Raises:
        InvalidInput: it is no amount, or not above nothing.
    """
    try:
        amount = Decimal(text.strip().removeprefix("$")) * 1_000_000
        if amount.is_finite() and 0 < amount <= _MOST_MICRODOLLARS and amount == amount.to_integral_value():
            return int(amount)
    except InvalidOperation:
        pass
    raise InvalidInput(f"{text} is no amount of dollars up to a million. Write it as 5 or 2.50.")


async def find_account(session: AsyncSession, user_id: str) -> User:
    """The user's row.

    Raises:
        NotFound: there is none.
    """
    user = await find_user(session, user_id)
    if user is None:
        raise NotFound(f"There is no user {user_id}. `cofounder users set {user_id}` makes one.")
    return user


def tell_builds(settings: Settings, builds: Sequence[str]) -> str | None:
    """Tell these builds that their user's money or standing has changed; what was in the way, if anything was.

    The change is in the database, so nothing is lost: the reaper tells them, too.
    """

    async def tell() -> None:
        async with asyncio.timeout(_TELL_SECONDS):
            workflows = BuildWorkflows(await connect_temporal(), settings.temporal_task_queue)
            for build_id in builds:
                with suppress(NotFound):
                    await workflows.tell_of_money(uuid.UUID(build_id))

    try:
        if builds:
            asyncio.run(tell())
    except (CofounderError, RPCError, RuntimeError, TimeoutError) as error:
        return str(error) or "Temporal does not answer."
    return None


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
