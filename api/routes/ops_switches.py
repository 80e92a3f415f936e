"""Switches and limits, which operators change while everything runs."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import structlog
from fastapi import APIRouter, Query
from temporalio.service import RPCError

from api.deps import Resources, ResourcesDep, TransactionDep, expensive, needs
from api.operators_route import OperatorsRoute
from api.responses import TAKES_BODY, problems
from api.switch_schemas import (
    KEY_MAX_CHARACTERS,
    LimitChange,
    LimitList,
    LimitOut,
    NewSwitch,
    SwitchedOn,
    SwitchList,
    SwitchOut,
)
from db.limits import find_limit, fleet_spending
from db.switches import list_switches
from db.transaction import request_transaction
from domain.identity import Scope
from domain.limits import LimitName
from domain.switches import SwitchScope
from services.notifications import notify_released
from services.switches import set_limit, switch_off, switch_on

log = structlog.get_logger(__name__)

router = APIRouter(prefix="/ops", tags=["operators"], route_class=OperatorsRoute)

_NOTIFY_SECONDS = 10.0
"""Notify waiting builds for this long while the request waits. The reaper notifies the rest."""


@router.get("/switches", summary="List switches", dependencies=[needs(Scope.OPS_READ)], responses=problems(422))
async def switches(resources: ResourcesDep, tx: TransactionDep) -> SwitchList:
    """What is off, since when, and why."""
    return SwitchList(
        autonomous_agent=resources.settings.autonomous_agent,
        off=[SwitchOut.of(each) for each in await list_switches(tx)],
    )


@router.put(
    "/switches", summary="Switch builds off", dependencies=[needs(Scope.OPS_WRITE)], responses=problems(*TAKES_BODY)
)
async def off(new: NewSwitch, resources: ResourcesDep, tx: TransactionDep) -> SwitchOut:
    """Let builds make no more model calls, and start no new ones. A call in progress ends first. Their work is kept,
    and they wait. If they are off, only the reason changes."""
    models = resources.settings.model_prices
    return SwitchOut.of(await switch_off(tx, new.scope, new.key or "", new.reason, models))


@router.delete(
    "/switches",
    summary="Switch builds on",
    dependencies=[needs(Scope.OPS_WRITE), expensive],
    responses=problems(422),
)
async def on(
    resources: ResourcesDep,
    scope: Annotated[SwitchScope, Query(description="Whose builds.")],
    key: Annotated[
        str,
        Query(
            description="The user's id, or the name of the plan or model; left out for the whole fleet.",
            max_length=KEY_MAX_CHARACTERS,
        ),
    ] = "",
) -> SwitchedOn:
    """Switch builds on again. Those that wait are notified."""
    async with request_transaction(resources.sessions) as tx:
        was_off = await switch_on(tx, scope, key)
    await _notify(resources)
    return SwitchedOn(was_off=was_off)


@router.get("/limits", summary="List limits", dependencies=[needs(Scope.OPS_READ)], responses=problems(422))
async def limits(tx: TransactionDep) -> LimitList:
    """The limits of the whole service, and how much of them is used today."""
    spending = await fleet_spending(tx, datetime.now(UTC).date())
    return LimitList(limits=[LimitOut.of(name, await find_limit(tx, name), spending) for name in LimitName])


@router.put(
    "/limits/{name}",
    summary="Set a limit",
    dependencies=[needs(Scope.OPS_WRITE), expensive],
    responses=problems(*TAKES_BODY),
)
async def limit(name: LimitName, change: LimitChange, resources: ResourcesDep) -> LimitOut:
    """Set or remove a limit. It holds at once; builds that sleep because of it are notified."""
    async with request_transaction(resources.sessions) as tx:
        row, spending = await set_limit(tx, name, change.value_microdollars, datetime.now(UTC).date())
    await _notify(resources)
    return LimitOut.of(name, row, spending)


async def _notify(resources: Resources) -> None:
    """Notify the builds that waited for a change that is committed."""
    try:
        async with asyncio.timeout(_NOTIFY_SECONDS):
            await notify_released(
                resources.sessions, resources.workflows, autonomous_agent=resources.settings.autonomous_agent
            )
    except (RPCError, RuntimeError, OSError) as error:  # a timeout is an OSError
        log.warning("the reaper will notify the builds of the change", error=error)
