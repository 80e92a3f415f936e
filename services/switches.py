"""Switch builds off and on, and limit what all of them spend, while everything runs.

In the caller's transaction. After it, notify the builds that wait: `services.notifications.notify_released`.
"""

from collections.abc import Collection
from datetime import date

from db import limits, switches
from db.limits import FleetSpending
from db.models import Limit, Switch
from db.transaction import Transaction
from db.users import find_user, plan_names
from domain.audit import Action
from domain.errors import InvalidInput
from domain.limits import LimitName
from domain.switches import SwitchScope
from services.audit import record


async def switch_off(tx: Transaction, scope: SwitchScope, key: str, reason: str, models: Collection[str]) -> Switch:
    """Let builds make no more model calls, and start no new ones. Their work is kept, and they wait.

    Args:
        scope: whose builds.
        key: the user's id, or the name of the plan or model; empty for the whole fleet.
        reason: for other operators.
        models: the names of all models that have a price.

    Raises:
        InvalidInput: the key does not fit the scope, or there is no such plan, user or model.
    """
    _check_key(scope, key)
    if scope is SwitchScope.PLAN and key not in (plans := await plan_names(tx)):
        raise InvalidInput(f"There is no plan {key}. The plans are: {', '.join(plans)}.", "key")
    if scope is SwitchScope.USER and await find_user(tx, key) is None:
        raise InvalidInput(
            f"There is no user {key}. Check the id: `cofounder ops builds` shows those of builds.", "key"
        )
    if scope is SwitchScope.MODEL and key not in models:
        raise InvalidInput(f"There is no model {key}. Those with a price are: {', '.join(sorted(models))}.", "key")
    switch = await switches.switch_off(tx, scope, key, reason=reason, by=_by(tx))
    await _record(tx, Action.SWITCH_OFF, scope, key)
    return switch


async def switch_on(tx: Transaction, scope: SwitchScope, key: str) -> bool:
    """Switch builds on again. Returns whether they were off.

    Raises:
        InvalidInput: the key does not fit the scope.
    """
    _check_key(scope, key)
    was_off = await switches.switch_on(tx, scope, key)
    await _record(tx, Action.SWITCH_ON, scope, key)
    return was_off


async def set_limit(tx: Transaction, name: LimitName, value: int | None, today: date) -> tuple[Limit, FleetSpending]:
    """Set a limit (microdollars; None removes it), and return it with what is spent today. It holds at once."""
    limit = await limits.set_limit(tx, name, value, by=_by(tx), today=today)
    await record(tx, Action.LIMIT_SET, changed=[limit.name])
    return limit, await limits.fleet_spending(tx, today)


def _check_key(scope: SwitchScope, key: str) -> None:
    if scope is SwitchScope.FLEET and key:
        raise InvalidInput("A switch of the whole fleet has no key. Leave it out.", "key")
    if scope is not SwitchScope.FLEET and not key:
        raise InvalidInput(f"Name the {scope} whose builds are meant.", "key")


def _by(tx: Transaction) -> str:
    return "unknown" if tx.author is None else tx.author.name


async def _record(tx: Transaction, action: Action, scope: SwitchScope, key: str) -> None:
    user_id, other = (key, None) if scope is SwitchScope.USER else (None, key or None)
    await record(tx, action, user_id=user_id, scope=scope, key=other)
