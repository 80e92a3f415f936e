"""Founders' rows: made on demand, and changed by operators."""

from dataclasses import dataclass
from datetime import date

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db import money
from db.models import PlanTier, User


@dataclass(frozen=True)
class UserChange:
    """What to change of a user; None leaves it as it is. A role mapped to None loses its override."""

    plan: str | None = None
    models: dict[str, str | None] | None = None
    suspended: bool | None = None
    renewal_day: int | None = None


async def ensure_user(session: AsyncSession, user_id: str) -> User:
    """The user's row; made with the default plan where there is none."""
    await session.execute(insert(User).values(id=user_id).on_conflict_do_nothing())
    return (await session.scalars(select(User).where(User.id == user_id))).one()


async def find_user(session: AsyncSession, user_id: str) -> User | None:
    """The user's row, if there is one."""
    return (await session.scalars(select(User).where(User.id == user_id))).one_or_none()


async def plan_names(session: AsyncSession) -> list[str]:
    """The plans that there are."""
    return list(await session.scalars(select(PlanTier.name).order_by(PlanTier.name)))


async def change_user(session: AsyncSession, user_id: str, change: UserChange, today: date) -> User:
    """Change the user, making the row where there is none. What is spent and reserved today stays covered.

    Notify the user's open builds afterwards: `services.notifications.notify_budget_changed`.
    """
    await ensure_user(session, user_id)
    user = (await session.scalars(select(User).where(User.id == user_id).with_for_update(key_share=True))).one()
    overrides = {**user.model_overrides, **(change.models or {})}
    values = {
        "plan": change.plan,
        "model_overrides": {role: model for role, model in overrides.items() if model is not None},
        "suspended": change.suspended,
        "renewal_day": change.renewal_day,
    }
    wanted = {name: value for name, value in values.items() if value is not None}
    changed = await session.scalars(
        update(User)
        .where(User.id == user_id)
        .values(**wanted)
        .returning(User)
        .execution_options(populate_existing=True)
    )
    if wanted:
        await money.recompute(session, user_id, today)
    return changed.one()
