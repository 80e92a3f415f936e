"""Acts of operators on many builds."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.bulk_schemas import BulkRunDetail, BulkRunList, BulkRunOut, DryRunOut, NewBulkRun
from api.deps import IdempotencyKey, ResourcesDep, TransactionDep, expensive, needs
from api.operators_route import OperatorsRoute
from api.paging import PAGE_MAX, BulkRunsPage
from api.responses import TAKES_BODY, problems
from db.bulk_runs import list_builds
from db.transaction import request_transaction
from domain.bulk import ItemState
from domain.fleet_filter import FleetFilter
from domain.identity import Scope
from services import bulk
from services.fleet import builds_of_versions

router = APIRouter(prefix="/ops/bulk", tags=["operators"], route_class=OperatorsRoute)


@router.post(
    "",
    status_code=201,
    response_model=BulkRunOut,
    summary="Act on many builds",
    dependencies=[needs(Scope.OPS_WRITE), expensive],
    responses={**problems(*TAKES_BODY, 409), 200: {"model": DryRunOut, "description": "The dry run."}},
)
async def create(
    new: NewBulkRun, resources: ResourcesDep, idempotency_key: IdempotencyKey = None
) -> BulkRunOut | Response:
    """Wake, cancel or finish all builds that a filter matches, or suspend their users, at a rate. The builds are chosen
    now; one that the act does not fit any more when its turn comes is skipped. The run survives crashes, and each build
    gets the act once. With `dry_run`, nothing happens, and the answer has the status 200."""
    of_versions = await builds_of_versions(resources.fleet, FleetFilter.parse(new.where))
    wanted = bulk.NewRun(new.act, new.where, new.rate_per_second, new.reason, idempotency_key, of_versions)
    if new.dry_run:
        async with request_transaction(resources.sessions) as tx:
            expected = DryRunOut.of(await bulk.try_run(tx, wanted))
        return Response(expected.model_dump_json(), media_type="application/json")
    return BulkRunOut.of(await bulk.create_run(resources.sessions, resources.workflows, wanted))


@router.get("", summary="List acts on many builds", dependencies=[needs(Scope.OPS_READ)], responses=problems(422))
async def list_(page: BulkRunsPage, tx: TransactionDep) -> BulkRunList:
    """The runs, the newest first, each with how far it is."""
    after = None if page.after is None else (page.after.created_at, page.after.id)
    found = await bulk.list_runs(tx, page.limit + 1, after)
    listed = found[: page.limit]
    last = listed[-1].row if len(found) > page.limit else None
    return BulkRunList(runs=[BulkRunOut.of(each) for each in listed], next_cursor=page.next_cursor(last))


@router.get(
    "/{run_id}", summary="Read an act on many builds", dependencies=[needs(Scope.OPS_READ)], responses=problems(422)
)
async def read(
    run_id: uuid.UUID,
    tx: TransactionDep,
    state: Annotated[ItemState | None, Query(description="Only builds in this state.")] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX, description="The number of builds at most.")] = 20,
    cursor: Annotated[
        int | None, Query(ge=0, le=2**31 - 1, description="`next_cursor` of the previous page of builds.")
    ] = None,
) -> BulkRunDetail:
    """How far a run is, with a page of its builds, in the order in which they are tried."""
    run = await bulk.read_run(tx, run_id)
    found = await list_builds(tx, run_id, limit + 1, cursor, state)
    listed = found[:limit]
    return BulkRunDetail.with_builds(run, listed, listed[-1].item.position if len(found) > limit else None)


@router.post(
    "/{run_id}/stop",
    summary="Stop an act on many builds",
    dependencies=[needs(Scope.OPS_WRITE)],
    responses=problems(409, 422),
)
async def stop(run_id: uuid.UUID, tx: TransactionDep) -> BulkRunOut:
    """Go to no further build. What was done stays done, and the run can be resumed. Stopping a stopped run changes
    nothing."""
    return BulkRunOut.of(await bulk.stop_run(tx, run_id))


@router.post(
    "/{run_id}/resume",
    summary="Resume an act on many builds",
    dependencies=[needs(Scope.OPS_WRITE)],
    responses=problems(409, 422),
)
async def resume(run_id: uuid.UUID, resources: ResourcesDep) -> BulkRunOut:
    """Go on with a run that was stopped, and try again the builds that have failed. No build gets the act twice."""
    return BulkRunOut.of(await bulk.resume_run(resources.sessions, resources.workflows, run_id))
