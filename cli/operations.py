"""Switches and limits of the whole service: parsed, notified and printed for operators."""

import asyncio
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from rich.console import Console
from temporalio.service import RPCError

from cli.accounts import NOTIFY_SECONDS, database
from cli.output import print_rows
from clients.build_workflows import BuildWorkflows
from clients.temporal import connect_temporal
from db.limits import FleetSpending
from db.models import Limit, Switch
from domain.budget import dollars
from domain.errors import CofounderError, InvalidInput
from domain.limits import LimitName
from domain.switches import SwitchScope
from services.notifications import notify_released
from settings import Settings


def parse_scope(user: str | None, plan: str | None, model: str | None) -> tuple[SwitchScope, str]:
    """Return the switch that the options name: the fleet's if there are none.

    Raises:
        InvalidInput: there are several.
    """
    named = [
        (scope, key)
        for scope, key in ((SwitchScope.USER, user), (SwitchScope.PLAN, plan), (SwitchScope.MODEL, model))
        if key
    ]
    if len(named) > 1:
        raise InvalidInput("Name one of --user, --plan and --model, or none for all builds.")
    return named[0] if named else (SwitchScope.FLEET, "")


def parse_limit(text: str) -> int | None:
    """Parse an amount in dollars, or `none`, into microdollars.

    Raises:
        InvalidInput: it is neither.
    """
    if text == "none":
        return None
    try:
        amount = Decimal(text) * 1_000_000
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0 or amount != amount.to_integral_value():
        raise InvalidInput(f"{text!r} is not an amount. Give dollars, e.g. 200 or 12.50; or `none` for no limit.")
    return int(amount)


def notify_waiting_builds(settings: Settings) -> tuple[int, str | None]:
    """Notify the builds that wait for what was just changed.

    Returns:
        How many received it, and the problem if there was one. The reaper repeats it within a minute.
    """

    async def notify() -> int:
        async with asyncio.timeout(NOTIFY_SECONDS):
            workflows = BuildWorkflows(await connect_temporal(), settings.temporal_task_queue)
            async with database(settings) as sessions:
                return len(await notify_released(sessions, workflows, autonomous_agent=settings.autonomous_agent))

    try:
        return asyncio.run(notify()), None
    except (CofounderError, RPCError, RuntimeError, TimeoutError) as error:
        return 0, str(error) or "Temporal does not answer."


def outcome(notified: int, trouble: str | None) -> str:
    """Say which builds continue."""
    if trouble:
        return f"Waiting builds could not be notified now; the reaper does so within a minute. ({trouble})"
    return f"Waiting builds notified: {notified}."


# ---- what is printed


def what(scope: str, key: str) -> str:
    """The builds that a switch stops, in words."""
    return "all builds" if scope == SwitchScope.FLEET else f"{scope} {key}"


def switch_json(switch: Switch) -> dict[str, Any]:
    """The switch as JSON."""
    return {
        "scope": switch.scope,
        "key": switch.key or None,
        "off_since": switch.off_since.isoformat(),
        "reason": switch.reason,
        "by": switch.by,
    }


def print_switches(console: Console, switches: Sequence[Switch], *, autonomous_agent: bool) -> None:
    """Print what is off."""
    if not autonomous_agent:
        console.print("AUTONOMOUS_AGENT is false here: all builds are off, whatever the switches say.")
    if not switches:
        console.print("Everything is on.")
    print_rows(
        console,
        [
            (what(each.scope, each.key), f"off since {each.off_since:%Y-%m-%d %H:%M} UTC by {each.by}: {each.reason}")
            for each in switches
        ],
    )


def limit_json(limit: Limit | None, today: FleetSpending) -> dict[str, Any]:
    """The fleet's daily limit as JSON."""
    return {
        "name": LimitName.FLEET_DAY,
        "microdollars": None if limit is None else limit.value,
        "spent_microdollars": today.spent,
        "reserved_microdollars": today.reserved,
        "reached_on": None if limit is None or limit.reached_on is None else limit.reached_on.isoformat(),
        "set_by": None if limit is None else limit.set_by,
    }


def print_limit(console: Console, limit: Limit | None, today: FleetSpending) -> None:
    """Print the fleet's daily limit, and how much of it is used."""
    value = None if limit is None else limit.value
    rows = {
        LimitName.FLEET_DAY.value: "no limit" if value is None else f"{dollars(value)} a day, all builds together",
        "spent": f"{dollars(today.spent)} today",
        "reserved": f"{dollars(today.reserved)} for calls in progress",
    }
    if limit is not None:
        rows["set by"] = f"{limit.set_by}, {limit.set_at:%Y-%m-%d %H:%M} UTC"
        if limit.reached_on is not None:
            rows["reached on"] = f"{limit.reached_on}: builds sleep until the next day"
    print_rows(console, rows.items())
