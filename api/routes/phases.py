"""The phases of a build, and what they have changed."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Path, Response

from api.change_schemas import BuildDiffOut, ChangedPhaseOut, PhaseDiffOut, PhaseList
from api.deps import CurrentUserId, ResourcesDep, TransactionDep, needs
from api.file_response import NEVER_CHANGES
from api.responses import problems
from db.phase_diffs import find_diff, last_diff
from db.transaction import request_transaction
from domain.errors import NotFound
from domain.identity import Scope
from services.builds import require_build
from services.phase_diffs import list_phases, missing_diff, read_stored_diff

router = APIRouter(prefix="/builds/{build_id}", tags=["workspaces"])


@router.get("/phases", dependencies=[needs(Scope.BUILDS_READ)], summary="List the phases", responses=problems(404, 422))
async def phases(build_id: uuid.UUID, user_id: CurrentUserId, tx: TransactionDep) -> PhaseList:
    """The phases that have ended, each with a commit, with how much they have changed and how long they took."""
    build = await require_build(tx, user_id, build_id)
    return PhaseList(phases=[ChangedPhaseOut.of(changed) for changed in await list_phases(tx, build)])


@router.get(
    "/phases/{number}/diff",
    dependencies=[needs(Scope.BUILDS_READ)],
    summary="Read what a phase has changed",
    responses=problems(404, 422),
)
async def phase_diff(
    build_id: uuid.UUID,
    number: Annotated[int, Path(ge=1, le=2**31 - 1)],
    user_id: CurrentUserId,
    resources: ResourcesDep,
    response: Response,
) -> PhaseDiffOut:
    """The changes since the phase before. Those of a build of an earlier version were not stored."""
    async with request_transaction(resources.sessions) as tx:
        build = await require_build(tx, user_id, build_id)
        row = await find_diff(tx, build_id, number)
        if row is None:
            known = {changed.phase.number for changed in await list_phases(tx, build)}
            raise (
                missing_diff(build_id, number)
                if number in known
                else NotFound(f"Build {build_id} has no phase {number}. `phases` lists those that have ended.")
            )
    stored = await read_stored_diff(resources.store, row)
    response.headers.update(NEVER_CHANGES)
    return PhaseDiffOut(**PhaseDiffOut.values(stored.phase), phase=number)


@router.get(
    "/diff",
    dependencies=[needs(Scope.BUILDS_READ)],
    summary="Read what a build has changed",
    responses=problems(404, 422),
)
async def build_diff(build_id: uuid.UUID, user_id: CurrentUserId, resources: ResourcesDep) -> BuildDiffOut:
    """The changes since the build began, up to the end of its last phase."""
    async with request_transaction(resources.sessions) as tx:
        build = await require_build(tx, user_id, build_id)
        row = await last_diff(tx, build_id)
        ended = await list_phases(tx, build) if row is None else []
    if row is None:
        if ended:
            raise missing_diff(build_id, ended[-1].phase.number)
        raise NotFound(f"Build {build_id} has changed nothing yet: no phase has ended.")
    stored = await read_stored_diff(resources.store, row)
    return BuildDiffOut(**BuildDiffOut.values(stored.build or stored.phase), up_to_phase=row.phase)
