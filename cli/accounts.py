"""Founders' accounts for operators: read from the database, shown in dollars."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

import asyncpg
from rich.console import Console
from rich.text import Text
from sqlalchemy.exc import DBAPIError
from temporalio.service import RPCError

from cli.exit_codes import Unreachable
from cli.operator import operator_author
from cli.output import budget_text, print_rows
from clients.build_workflows import BuildWorkflows
from clients.temporal import connect_temporal
from db.session import Sessions, make_engine, make_sessions
from db.transaction import Transaction, transaction
from domain.budget import dollars
from domain.errors import CofounderError, InvalidInput, Misconfigured
from domain.model_choice import ModelChoice
from domain.pricing import PriceTable
from domain.user_id import RULE, is_user_id
from services.accounts import MAX_TOP_UP, ROLES, Account, check_models
from services.notifications import notify_budget_changed
from settings import Settings

NOTIFY_SECONDS = 20.0
"""Stop signalling builds after this many seconds."""

T = TypeVar("T")


def as_json(account: Account) -> dict[str, Any]:
    """The account as JSON. An allowance of None is unlimited."""
    user, budget = account.user, account.budget
    return {
        "user": user.id,
        "plan": user.plan,
        "models": {role: choice.model for role, choice in _choices(account).items()},
        "choices": {role: choice.model_dump(mode="json") for role, choice in _choices(account).items()},
        "suspended": user.suspended,
        "renewal_day": user.renewal_day,
        "allowance_microdollars": budget.allowance,
        "spent_microdollars": budget.spent,
        "reserved_microdollars": budget.reserved,
        "percent": budget.percent,
        "topped_up_microdollars": account.topped_up,
        "open_builds": [str(build_id) for build_id in account.open_builds],
    }


def today() -> date:
    """Today's date in UTC: allowances are per UTC day."""
    return datetime.now(UTC).date()


def print_account(console: Console, account: Account) -> None:
    """Print the account as rows."""
    user, budget = account.user, account.budget
    used = budget_text(budget.percent, budget.level)
    rows: dict[str, str | Text] = {
        "user": user.id,
        "plan": user.plan,
        "models": ", ".join(f"{role}={choice}" for role, choice in _choices(account).items()) or "the plan's",
        "account": "suspended" if user.suspended else "active",
        "renewal day": str(user.renewal_day),
        "allowance": "unlimited" if budget.allowance is None else f"{dollars(budget.allowance)} today",
        "used": used.append(" of today's allowance", "default") if budget.percent is not None else used,
        "spent": f"{dollars(budget.spent)} today",
        "reserved": f"{dollars(budget.reserved)} for calls in progress",
        "top-ups": f"{dollars(account.topped_up)} today",
        "open builds": ", ".join(map(str, account.open_builds)) or "none",
    }
    print_rows(console, rows.items())


def check_user_id(user_id: str) -> None:
    """Check a user's id before a row is created with it.

    Raises:
        InvalidInput: the API would refuse the id.
    """
    if not is_user_id(user_id):
        raise InvalidInput(f"{user_id!r} is not a valid user id. {RULE}")


def microdollars(text: str) -> int:
    """Parse an amount in dollars, such as `5`, `2.50` or `$2.50`.

    Raises:
        InvalidInput: the text is not an amount above 0 and up to 1,000,000.
    """
    try:
        amount = Decimal(text.strip().removeprefix("$")) * 1_000_000
        if amount.is_finite() and 0 < amount <= MAX_TOP_UP and amount == amount.to_integral_value():
            return int(amount)
    except InvalidOperation:
        pass
    raise InvalidInput(f"{text} is not a valid amount. Use dollars, e.g. 5 or 2.50 (at most 1,000,000).")


def notify_builds(settings: Settings, user_id: str) -> tuple[list[str], str | None]:
    """Signal the user's open builds that their budget or standing has changed.

    The change is in the database already, so a failure loses nothing: the reaper signals them again.

    Returns:
        The ids of the builds that were signalled, and the problem, if there was one.
    """

    async def notify() -> list[uuid.UUID]:
        async with asyncio.timeout(NOTIFY_SECONDS):
            workflows = BuildWorkflows(await connect_temporal(), settings.temporal_task_queue)
            async with database(settings) as sessions:
                return await notify_budget_changed(sessions, workflows, user_id)

    try:
        return [str(build_id) for build_id in asyncio.run(notify())], None
    except (CofounderError, RPCError, RuntimeError, TimeoutError) as error:
        return [], str(error) or "Temporal does not answer."


def parse_models(options: list[str], prices: PriceTable) -> dict[str, Any]:
    """Parse overrides by role from `ROLE=MODEL`; `ROLE=` gives None, which removes an override.

    MODEL is a name, or JSON such as `{"model": "…", "effort": "high", "fallbacks": ["…"]}`.

    Raises:
        InvalidInput: an option does not have that form, the role does not exist, or the model can't be used.
    """
    models: dict[str, Any] = {}
    for each in options:
        role, equals, model = (part.strip() for part in each.partition("="))
        if not equals or role not in ROLES:
            raise InvalidInput(f"{each} is not valid. Use ROLE=MODEL with one of these roles: {', '.join(ROLES)}.")
        models[role] = _model_of(model)
    return check_models(models, prices)


def _model_of(text: str) -> Any:
    if not text.startswith("{"):
        return text or None
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{text} is not JSON: {error}") from None


def _choices(account: Account) -> dict[str, ModelChoice]:
    return {role: ModelChoice.parse(model) for role, model in account.user.model_overrides.items()}


def in_database(settings: Settings, run: Callable[[Transaction], Awaitable[T]]) -> T:
    """Run in a transaction of the database at DATABASE_URL.

    Raises:
        Unreachable: the database does not answer.
        Misconfigured: the database can't be used; the message says what to do.
    """

    async def opened() -> T:
        async with database(settings) as sessions, transaction(sessions) as tx:
            return await run(tx)

    return asyncio.run(opened())


@asynccontextmanager
async def database(settings: Settings) -> AsyncIterator[Sessions]:
    """Sessions of the database at DATABASE_URL.

    Raises:
        Unreachable, Misconfigured: as `in_database`.
    """
    engine = make_engine(settings.database_url, pool_size=1)
    try:
        yield make_sessions(engine).by(operator_author())
    except OSError as error:
        raise Unreachable(
            f"The database does not answer. Check that DATABASE_URL points to a running PostgreSQL. ({error})"
        ) from error
    except (DBAPIError, asyncpg.PostgresError) as error:
        raise Misconfigured(
            "The database can't be used. Check DATABASE_URL and run `cofounder migrate`. "
            f"({str(error).splitlines()[0]})"
        ) from error
    finally:
        await engine.dispose()
