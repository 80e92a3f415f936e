"""Switches: whose builds an operator has switched off. A row is a switch that is off."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import UUID, ColumnElement, and_, bindparam, delete, exists, func, or_, select, text
from sqlalchemy.dialects.postgresql import insert

from db.models import Build, Switch, User
from db.transaction import Transaction
from domain.switches import SwitchScope

OFF_SCOPE = """
    (select scope from switches
        where scope = 'fleet' or scope = 'plan' and key = users.plan or scope = 'user' and key = users.id
            or scope = 'model' and key = coalesce(builds.model, '')
        order by scope limit 1)
"""
"""SQL: the scope of a switch that is off for the row of `builds` and `users`; null if there is none."""


@dataclass(frozen=True)
class Standing:
    """What holds a build regardless of its budget."""

    suspended: bool
    switched_off: SwitchScope | None

    @classmethod
    def read(cls, suspended: bool, scope: str | None) -> "Standing":
        """Make it of two columns."""
        return cls(suspended, None if scope is None else SwitchScope(scope))


_STANDING = text(
    f"select users.suspended, {OFF_SCOPE} from builds join users on users.id = builds.user_id where builds.id = :build"
).bindparams(bindparam("build", type_=UUID(as_uuid=True)))


async def standing_of(tx: Transaction, build_id: uuid.UUID) -> Standing:
    """Whether the build's user is suspended, and whether a switch is off for it."""
    return Standing.read(*(await tx.execute(_STANDING, {"build": build_id})).one())


def is_off_for_build() -> ColumnElement[bool]:
    """Condition on a row of `Build` and `User`: a switch is off for it."""
    of_fleet = Switch.scope == SwitchScope.FLEET
    of_plan = and_(Switch.scope == SwitchScope.PLAN, Switch.key == User.plan)
    of_user = and_(Switch.scope == SwitchScope.USER, Switch.key == User.id)
    of_model = and_(Switch.scope == SwitchScope.MODEL, Switch.key == Build.model)
    return exists().where(or_(of_fleet, of_plan, of_user, of_model))


async def find_off(tx: Transaction, user_id: str, plan: str, models: Sequence[str]) -> SwitchScope | None:
    """The scope of a switch that is off for a new build of this user, if there is one."""
    keys = {
        SwitchScope.FLEET: [""],
        SwitchScope.PLAN: [plan],
        SwitchScope.USER: [user_id],
        SwitchScope.MODEL: list(models),
    }
    one = or_(*(and_(Switch.scope == scope, Switch.key.in_(values)) for scope, values in keys.items()))
    scope = await tx.session.scalar(select(Switch.scope).where(one).order_by(Switch.scope).limit(1))
    return None if scope is None else SwitchScope(scope)


async def switch_off(tx: Transaction, scope: SwitchScope, key: str, *, reason: str, by: str) -> Switch:
    """Switch builds off; if they are off, only the reason changes."""
    rows = await tx.session.scalars(
        insert(Switch)
        .values(scope=scope, key=key, reason=reason, by=by, off_since=func.clock_timestamp())
        .on_conflict_do_update(index_elements=["scope", "key"], set_={"reason": reason, "by": by})
        .returning(Switch)
        .execution_options(populate_existing=True)
    )
    return rows.one()


async def switch_on(tx: Transaction, scope: SwitchScope, key: str) -> bool:
    """Switch builds on again; returns whether they were off. Notify the builds that wait afterwards."""
    gone = await tx.session.scalars(
        delete(Switch).where(Switch.scope == scope, Switch.key == key).returning(Switch.scope)
    )
    return gone.one_or_none() is not None


async def list_switches(tx: Transaction) -> list[Switch]:
    """All switches that are off."""
    return list(await tx.session.scalars(select(Switch).order_by(Switch.off_since)))
