"""What operators see of all builds."""

import asyncio
import uuid
from datetime import UTC, date, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from api.deps import Resources, ResourcesDep, TransactionDep, needs
from api.operators_route import OperatorsRoute
from api.ops_schemas import (
    CheckList,
    FleetBuildList,
    FleetBuildOut,
    FleetOut,
    SpendOut,
    StuckBuildOut,
    StuckOut,
    WholeBuildOut,
    WhyOut,
)
from api.paging import cursors_of
from api.responses import problems
from db.fleet_build import read_whole_build
from db.fleet_builds import FleetPosition, list_fleet
from db.operator_figures import SpendBy, spending
from db.transaction import request_transaction
from domain.audit import Action
from domain.errors import InvalidInput, NotFound
from domain.fleet_filter import SORT_PATTERN, TEXT_MAX_CHARACTERS, FleetFilter, FleetOrder
from domain.identity import Scope
from domain.names import build_workflow_id
from domain.status import Dependency, Status, WaitingFor
from services.audit import record, record_once_an_hour
from services.fleet import builds_of_versions, open_versions, read_fleet, read_reaper, versions_of
from services.stuck import ask_for_workflow, find_stuck, reasons_of

router = APIRouter(prefix="/ops", tags=["operators"], route_class=OperatorsRoute)

PAGE_MAX = 500

_VALUE = {"min_length": 1, "max_length": 200}


@router.get("/fleet", summary="Read the fleet", dependencies=[needs(Scope.OPS_READ)], responses=problems(422))
async def fleet(resources: ResourcesDep) -> FleetOut:
    """How many builds there are of each status, what they spend and wait for, and what is switched off or away."""
    versions, reaper = await asyncio.gather(open_versions(resources.fleet), read_reaper(resources.fleet))
    async with request_transaction(resources.sessions) as tx:
        await record_once_an_hour(tx, Action.FLEET_READ)
        found = await read_fleet(tx, datetime.now(UTC), versions)
    return FleetOut.of(found, reaper, resources.settings.sandbox_quota)


def fleet_filter(
    where: Annotated[
        str,
        Query(
            max_length=TEXT_MAX_CHARACTERS,
            description="All conditions as a text such as `status=sleeping and plan=partner`, instead of the others.",
        ),
    ] = "",
    status: Annotated[list[Status], Query(description="Only builds with one of these.")] = [],  # noqa: B006
    waiting_for: Annotated[list[WaitingFor], Query(description="Only builds that need one of these.")] = [],  # noqa: B006
    dependency: Annotated[list[Dependency], Query(description="Only builds that wait for one of these.")] = [],  # noqa: B006
    plan: Annotated[list[Annotated[str, Query(**_VALUE)]], Query(description="Of users on one of these plans.")] = [],  # noqa: B006
    model: Annotated[list[Annotated[str, Query(**_VALUE)]], Query(description="With one of these models.")] = [],  # noqa: B006
    user: Annotated[list[Annotated[str, Query(**_VALUE)]], Query(description="Of one of these users.")] = [],  # noqa: B006
    version: Annotated[
        list[Annotated[str, Query(**_VALUE)]], Query(description="Run by workers of one of these versions.")
    ] = [],  # noqa: B006
    older_than_seconds: Annotated[
        int | None, Query(ge=0, le=10**9, description="With their status for at least this long.")
    ] = None,
    open: Annotated[bool | None, Query(description="true: only open builds; false: only ended ones.")] = None,
    closed_since: Annotated[
        str | None,
        Query(max_length=40, description="Ended on this UTC day, or at this time, or later.", examples=["2026-12-01"]),
    ] = None,
) -> FleetFilter:
    """The filter that a request's query means."""
    chosen = FleetFilter.of(
        status=status,
        waiting_for=waiting_for,
        dependency=dependency,
        plan=plan,
        model=model,
        user=user,
        version=version,
        older_than_seconds=older_than_seconds,
        open=open,
        closed_since=closed_since,
    )
    if not where:
        return chosen
    if not chosen.is_empty:
        raise InvalidInput("Name conditions either in `where` or one by one, not both.", "where")
    return FleetFilter.parse(where)


FilterDep = Annotated[FleetFilter, Depends(fleet_filter)]


@router.get("/builds", summary="List all users' builds", dependencies=[needs(Scope.OPS_READ)], responses=problems(422))
async def builds(
    resources: ResourcesDep,
    only: FilterDep,
    sort: Annotated[
        str, Query(pattern=SORT_PATTERN, description="By what they are sorted; with a minus the highest first.")
    ] = "-created_at",
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX, description="The number of builds at most.")] = 100,
    cursor: Annotated[
        str | None,
        Query(pattern="^[A-Za-z0-9_-]{54}$", description="`next_cursor` of the previous page; left out for the first."),
    ] = None,
) -> FleetBuildList:
    """The builds of all users that match, with what they wait for and what they cost."""
    order = FleetOrder.parse(sort)
    cursors = cursors_of(resources, f"fleet {order}")
    after = None if cursor is None else FleetPosition(*cursors.decode_number(cursor))
    ids = await builds_of_versions(resources.fleet, only)
    async with request_transaction(resources.sessions) as tx:
        await record_once_an_hour(tx, Action.FLEET_READ)
        for user_id in only.user:  # who names users reads theirs
            await record_once_an_hour(tx, Action.USER_READ, user_id)
        page = await list_fleet(tx, only, order, after=after, limit=limit, of_versions=ids)
    versions = await versions_of(resources.fleet, [build.id for build in page.builds])
    query = only.temporal_query(resources.workflows.payload_keys.label)
    return FleetBuildList(
        builds=[
            FleetBuildOut.of(build, versions.get(build.id), temporal_url(resources, build.id)) for build in page.builds
        ],
        next_cursor=None if page.next is None else cursors.encode_number(page.next.value, page.next.id),
        total=page.total,
        where=only.as_text(),
        temporal_query=query.text,
        temporal_query_left_out=list(query.left_out),
        temporal_command=query.list_command(resources.fleet.namespace),
    )


def temporal_url(resources: Resources, build_id: uuid.UUID) -> str | None:
    """The address of a build's workflow in Temporal's UI, if that has one."""
    ui = resources.settings.temporal_ui_url
    if ui is None:
        return None
    return f"{ui.rstrip('/')}/namespaces/{resources.fleet.namespace}/workflows/{build_workflow_id(build_id)}"


@router.get("/stuck", summary="List stuck builds", dependencies=[needs(Scope.OPS_READ)], responses=problems(422))
async def stuck(resources: ResourcesDep) -> StuckOut:
    """Builds that make no progress, each with why and what to do; and what else an operator must look at."""
    async with request_transaction(resources.sessions) as tx:
        await record_once_an_hour(tx, Action.FLEET_READ)
    found = await find_stuck(resources.sessions, resources.fleet, resources.sandboxes, datetime.now(UTC))
    versions = await versions_of(resources.fleet, [each.build.id for each in found.builds])
    return StuckOut(
        builds=[
            StuckBuildOut(
                build=FleetBuildOut.of(each.build, versions.get(each.build.id), temporal_url(resources, each.build.id)),
                why=[WhyOut.of(why) for why in each.why],
            )
            for each in found.builds
        ],
        others=[WhyOut.of(why) for why in found.others],
    )


@router.get(
    "/builds/{build_id}",
    summary="Read one build of any user",
    dependencies=[needs(Scope.OPS_READ)],
    responses=problems(422),
)
async def build(build_id: uuid.UUID, resources: ResourcesDep) -> WholeBuildOut:
    """The build's row, workflow, sandbox, permit, snapshots, ledger and last events. The audit says who reads it."""
    answer = await ask_for_workflow(resources.fleet, build_id)
    async with request_transaction(resources.sessions) as tx:
        whole = await read_whole_build(tx, build_id)
        if whole is None:
            raise NotFound(f"There is no build {build_id}.")
        why = await reasons_of(tx, build_id, answer, datetime.now(UTC))
        await record(
            tx, Action.USER_READ, user_id=whole.row.user_id, project_id=whole.row.project_id, build_id=build_id
        )
    return WholeBuildOut.of(whole, answer, why, temporal_url(resources, build_id))


SPEND_ROWS = 1_000


@router.get("/spend", summary="Sum up spending", dependencies=[needs(Scope.OPS_READ)], responses=problems(422))
async def spend(
    tx: TransactionDep,
    by: Annotated[SpendBy, Query(description="What a row is.")] = SpendBy.USER,
    first: Annotated[date | None, Query(alias="from", description="The first UTC day; today by default.")] = None,
    last: Annotated[date | None, Query(alias="to", description="The last UTC day; today by default.")] = None,
    limit: Annotated[int, Query(ge=1, le=SPEND_ROWS, description="The number of rows at most.")] = 100,
) -> SpendOut:
    """What was spent, by user, plan, model or day, beside what was spent a day in the week before."""
    last = last or datetime.now(UTC).date()
    first = first or last
    if first > last:
        raise InvalidInput("`from` is after `to`. Exchange them.", "from")
    if first < date(2000, 1, 1):
        raise InvalidInput("`from` is before the year 2000. Name a later day.", "from")
    await record_once_an_hour(tx, Action.FLEET_READ)
    return SpendOut.of(by, first, last, await spending(tx, by, first, last, limit))


@router.get("/checks", summary="Check the servers", dependencies=[needs(Scope.OPS_READ)], responses=problems(422))
async def checks(resources: ResourcesDep) -> CheckList:
    """The checks that `cofounder doctor` makes of servers, made on the API's machine and kept for ten seconds. What
    they find out of the machine of a command or a worker, only that machine can check."""
    return CheckList.of(await resources.checks.results())
