"""Read and change founders' accounts: plan, models, standing, and what may be spent on a day.

Everything runs in the caller's transaction. Notify the user's open builds after it is committed:
`services.notifications.notify_budget_changed`.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from db import money
from db.erasures import find_erasure_of
from db.models import User
from db.transaction import Transaction
from db.users import UserChange, change_user, find_user, plan_names, require_user
from domain.audit import Action
from domain.budget import BudgetState
from domain.erasure import why_suspended
from domain.errors import Conflict, InvalidInput, UnknownModel
from domain.model_choice import CODER, JUDGE, ModelChoice, check_choice
from domain.pricing import PriceTable
from services.audit import record

ROLES = (CODER, JUDGE)
"""Roles for which a user may have a model of their own."""

MAX_TOP_UP = 10**12
"""Microdollars. Refuse a larger top-up as a typing mistake."""


@dataclass(frozen=True)
class Account:
    """A user's account on a day. Money is in microdollars."""

    user: User
    budget: BudgetState
    topped_up: int
    open_builds: list[uuid.UUID]


async def read_account(tx: Transaction, user_id: str, day: date) -> Account:
    """The account, with what the user may spend, has spent and was topped up on the day.

    Raises:
        NotFound: there is no such user.
    """
    user = await require_user(tx, user_id)
    return Account(
        user=user,
        budget=await money.budget_of(tx, user_id, day),
        topped_up=await money.topped_up(tx, user_id, day),
        open_builds=await money.open_builds_of(tx, user_id),
    )


async def change_account(
    tx: Transaction, user_id: str, change: UserChange, day: date, bulk_run: uuid.UUID | None = None
) -> Account:
    """Change the user; make the row if there is none. `bulk_run`: the act on many builds of which this is a part.

    Raises:
        InvalidInput: there is no such plan.
        Conflict: the suspension is to be lifted of an account that is being deleted, or was.
    """
    plans = await plan_names(tx)
    if change.plan is not None and change.plan not in plans:
        raise InvalidInput(f"There is no plan {change.plan}. The plans are: {', '.join(plans)}.", "plan")
    if change.suspended is False:
        await find_user(tx, user_id, locked=True)  # a request to delete the account is seen once it is committed
        erasure = await find_erasure_of(tx, user_id, None)
        if reason := why_suspended(user_id, is_being_erased=erasure is not None):
            raise Conflict(reason)
    await change_user(tx, user_id, change, day)
    await record(tx, Action.ACCOUNT_CHANGE, user_id=user_id, changed=change.fields, bulk_run=bulk_run)
    return await read_account(tx, user_id, day)


async def top_up_account(
    tx: Transaction, user_id: str, amount: int, day: date, *, note: str | None, key: str | None
) -> Account:
    """Add money (microdollars) to what the user may spend on the day; a repeat with the same key adds nothing.

    Raises:
        NotFound: there is no such user.
        InvalidInput: the plan has no limit.
        KeyReused: the key was used for another amount.
    """
    account = await read_account(tx, user_id, day)
    if account.budget.allowance is None:
        raise InvalidInput(f"The plan {account.user.plan} has no limit, so there is nothing to top up.")
    await money.top_up(tx, user_id, amount, day, note=note, key=key)
    topped_up = await read_account(tx, user_id, day)
    if topped_up.topped_up != account.topped_up:  # not a repeat
        await record(tx, Action.ACCOUNT_TOP_UP, user_id=user_id, microdollars=amount)
    return topped_up


def check_models(models: Mapping[str, Any], prices: PriceTable) -> dict[str, Any]:
    """Check that a user may have these models, by role, and return them as they are stored.

    A model is its name or JSON with effort and fallbacks; None stands for the plan's model.

    Raises:
        InvalidInput: there is no such role, a model has no price, or it does not take the effort.
    """
    stored: dict[str, Any] = {}
    for role, model in models.items():
        if role not in ROLES:
            raise InvalidInput(f"There is no role {role}. The roles are: {', '.join(ROLES)}.", f"models.{role}")
        try:
            choice = None if model is None else ModelChoice.parse(model)
            if choice is not None:
                check_choice(choice, prices, "The user's override")
        except UnknownModel as error:
            raise InvalidInput(str(error), "models") from error
        stored[role] = None if choice is None else choice.as_stored()
    return stored
