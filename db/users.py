"""User rows: made by a sign-in or an operator, and changed by operators."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert

from db import money
from db.models import PlanTier, User
from db.transaction import Transaction
from domain.errors import NotFound


@dataclass(frozen=True)
class UserChange:
    """What to change about a user; None leaves a field as it is. A role mapped to None loses its override."""

    plan: str | None = None
    models: dict[str, Any] | None = None
    suspended: bool | None = None
    renewal_day: int | None = None

    @property
    def fields(self) -> list[str]:
        """The names of the fields that change."""
        return [name for name, value in vars(self).items() if value is not None]


async def ensure_user(tx: Transaction, user_id: str) -> User:
    """Return the user's row. Create it with the default plan if the user is new."""
    await tx.session.execute(insert(User).values(id=user_id).on_conflict_do_nothing())
    return (await tx.session.scalars(select(User).where(User.id == user_id))).one()


async def require_user(tx: Transaction, user_id: str) -> User:
    """Return the user's row.

    Raises:
        NotFound: there is no such user.
    """
    user = await find_user(tx, user_id)
    if user is None:
        raise NotFound(f"There is no user {user_id}. `cofounder users set {user_id}` makes one.")
    return user


async def find_user(tx: Transaction, user_id: str, *, locked: bool = False) -> User | None:
    """Return the user's row, if it exists. `locked`: until the transaction ends."""
    query = select(User).where(User.id == user_id)
    if locked:
        query = query.with_for_update(key_share=True).execution_options(populate_existing=True)
    return (await tx.session.scalars(query)).one_or_none()


async def suspended_among(tx: Transaction, user_ids: Collection[str]) -> set[str]:
    """Return those of the users who are suspended."""
    return set(await tx.session.scalars(select(User.id).where(User.id.in_(user_ids), User.suspended)))


async def list_plans(tx: Transaction) -> list[PlanTier]:
    """Return all plans."""
    return list(await tx.session.scalars(select(PlanTier)))


async def plan_names(tx: Transaction) -> list[str]:
    """Return the names of all plans."""
    return list(await tx.session.scalars(select(PlanTier.name).order_by(PlanTier.name)))


async def change_user(tx: Transaction, user_id: str, change: UserChange, today: date) -> User:
    """Change the user; create the row if the user is new. What was spent and reserved today stays covered.

    Notify the user's open builds afterwards: `services.notifications.notify_budget_changed`.
    """
    await ensure_user(tx, user_id)
    user = (await tx.session.scalars(select(User).where(User.id == user_id).with_for_update(key_share=True))).one()
    overrides = {**user.model_overrides, **(change.models or {})}
    values = {
        "plan": change.plan,
        "model_overrides": {role: model for role, model in overrides.items() if model is not None},
        "suspended": change.suspended,
        "renewal_day": change.renewal_day,
    }
    updates = {name: value for name, value in values.items() if value is not None}
    changed = await tx.session.scalars(
        update(User)
        .where(User.id == user_id)
        .values(**updates)
        .returning(User)
        .execution_options(populate_existing=True)
    )
    if updates:
        await money.recompute(tx, user_id, today)
    return changed.one()


async def load_user_with_plan(tx: Transaction, user_id: str) -> tuple[User, PlanTier]:
    """Return the user and the user's plan.

    Raises:
        NoResultFound: the user does not exist.
    """
    user, plan = (
        await tx.session.execute(
            select(User, PlanTier).join(PlanTier, User.plan == PlanTier.name).where(User.id == user_id)
        )
    ).one()
    return user, plan


async def load_tool_call_cap(tx: Transaction, user_id: str) -> tuple[str, int]:
    """Return the name of the user's plan, and how many tool calls it allows a build.

    Raises:
        NoResultFound: the user does not exist.
    """
    plan, cap = (
        await tx.session.execute(
            select(PlanTier.name, PlanTier.tool_call_cap)
            .join(User, User.plan == PlanTier.name)
            .where(User.id == user_id)
        )
    ).one()
    return plan, cap


async def find_renewal_day(tx: Transaction, user_id: str) -> int | None:
    """Return the day of the month on which the user's plan renews; None if the user does not exist."""
    return await tx.session.scalar(select(User.renewal_day).where(User.id == user_id))
