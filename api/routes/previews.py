"""A ready build's running product."""

import uuid
from contextlib import suppress

from fastapi import APIRouter, Response
from temporalio.service import RPCError

from api.deps import CurrentUserId, ResourcesDep, TransactionDep, expensive, needs
from api.errors import BUILD_NOT_READY, Problem
from api.responses import TAKES_BODY, problems
from api.schemas import PreviewOut, PreviewWish
from db.erasures import is_being_erased
from db.previews import find_preview
from db.transaction import Transaction, request_transaction
from domain.audit import Action
from domain.errors import Conflict, NotFound, TemporalUnavailable
from domain.identity import Right, Scope
from domain.status import Status
from services.audit import record
from services.builds import require_build

router = APIRouter(prefix="/builds/{build_id}/preview", tags=["previews"])


@router.get("", dependencies=[needs(Scope.BUILDS_READ)], summary="Read the preview", responses=problems(404, 422))
async def read(build_id: uuid.UUID, user_id: CurrentUserId, tx: TransactionDep) -> PreviewOut:
    """Where the product runs, and until when."""
    await require_build(tx, user_id, build_id)
    return await _preview(tx, build_id)


@router.post(
    "",
    dependencies=[needs(Scope.BUILDS_WRITE), expensive],
    status_code=202,
    summary="Open or extend the preview",
    responses=problems(*TAKES_BODY, 404, 409),
)
async def open_or_extend(
    build_id: uuid.UUID,
    user_id: CurrentUserId,
    resources: ResourcesDep,
    response: Response,
    wish: PreviewWish | None = None,
) -> PreviewOut:
    """Keep the product running for at least `seconds` from now. A closed preview starts again from the snapshot, and
    with `restart` an open one, too."""
    async with request_transaction(resources.sessions) as tx:
        build = await require_build(tx, user_id, build_id, Right.CHANGE)
        if await is_being_erased(tx, build.project_id):
            raise Conflict("The project is being deleted, so its previews stay closed.")
        before = await find_preview(tx, build_id)
    if build.status != Status.READY:
        raise Problem(BUILD_NOT_READY, f"Build {build_id} is {build.status}; only a ready build has a preview.")
    seconds = (wish.seconds if wish else None) or resources.settings.preview_seconds
    try:
        if wish and wish.restart:
            with suppress(NotFound):  # it is closed
                await resources.workflows.reclaim_preview(build_id)
        await resources.workflows.open_preview(build_id, seconds, seq=before.seq if before else 0)
    except (RPCError, RuntimeError) as error:
        raise TemporalUnavailable from error
    response.headers["Location"] = f"/v1/builds/{build_id}/preview"
    async with request_transaction(resources.sessions) as tx:
        await record(tx, Action.PREVIEW_OPEN, project_id=build.project_id, build_id=build_id)
        if before is not None:
            return await _preview(tx, build_id)
    return PreviewOut(build_id=build_id, state="opening", url=None, expires_at=None, reason=None, log=None)


async def _preview(tx: Transaction, build_id: uuid.UUID) -> PreviewOut:
    preview = await find_preview(tx, build_id)
    if preview is None:
        raise NotFound(f"Build {build_id} has no preview yet. It gets one when it is ready.")
    return PreviewOut.of(preview)
