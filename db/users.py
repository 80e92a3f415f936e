"""User rows: created on demand, and changed by operators."""

from dataclasses import dataclass
from datetime import date

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert

from db import money
from db.models import PlanTier, User
from db.transaction import Transaction


@dataclass(frozen=True)
class UserChange:
    """What to change about a user; None leaves a field as it is. A role mapped to None loses its override."""

    plan: str | None = None
    models: dict[str, str | None] | None = None
    suspended: bool | None = None
    renewal_day: int | None = None


async def ensure_user(tx: Transaction, user_id: str) -> User:
    """Return the user's row. Create it with the default plan if the user is new."""
    await tx.session.execute(insert(User).values(id=user_id).on_conflict_do_nothing())
    return (await tx.session.scalars(select(User).where(User.id == user_id))).one()


async def find_user(tx: Transaction, user_id: str) -> User | None:
    """Return the user's row, if it exists."""
    return (await tx.session.scalars(select(User).where(User.id == user_id))).one_or_none()


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
