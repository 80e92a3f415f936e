"""Exports that are written in the background: ask for them, see how far they are, download their files."""

import uuid

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

from api.deps import (
    CurrentIdentity,
    CurrentUserId,
    IdempotencyKey,
    Resources,
    ResourcesDep,
    TransactionDep,
    expensive,
    needs,
    require_scope,
)
from api.export_schemas import ExportList, ExportOut
from api.file_response import NEVER_CHANGES, bytes_of, stream_file
from api.responses import problems
from db.stored_exports import list_exports
from db.transaction import request_transaction
from domain.identity import Scope
from services.stored_exports import request_export, require_export, require_file

router = APIRouter(tags=["account"])

_MOST = 200


@router.post(
    "/projects/{project_id}/exports",
    dependencies=[needs(Scope.BUILDS_READ), expensive],
    status_code=202,
    summary="Export a project in the background",
    responses=problems(404, 409, 422),
)
async def create_of_project(
    project_id: uuid.UUID,
    user_id: CurrentUserId,
    resources: ResourcesDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> ExportOut:
    """Have the same zip written as `GET /v1/projects/{id}/export` sends, for projects that take long to send. A worker
    writes it and begins again if it is interrupted. `GET /v1/exports/{id}` says how far it is; for a week its file can
    be downloaded, and of one project the last three. While the same is being written, this returns that export."""
    return await _create(resources, user_id, project_id, idempotency_key, response)


@router.post(
    "/account/exports",
    dependencies=[needs(Scope.ACCOUNT_READ), expensive],
    status_code=202,
    summary="Export the account in the background",
    responses=problems(404, 409, 422),
)
async def create_of_account(
    user_id: CurrentUserId, resources: ResourcesDep, response: Response, idempotency_key: IdempotencyKey = None
) -> ExportOut:
    """Have the same zip written as `GET /v1/account/export` sends. See `POST /v1/projects/{id}/exports`."""
    return await _create(resources, user_id, None, idempotency_key, response)


@router.get("/exports", dependencies=[needs(Scope.ACCOUNT_READ)], summary="List exports", responses=problems(422))
async def list_of_user(user_id: CurrentUserId, tx: TransactionDep) -> ExportList:
    """The exports that you have asked for in the background, the newest first, at most 200."""
    return ExportList(exports=[ExportOut.of(each) for each in await list_exports(tx, user_id, _MOST)])


@router.get(
    "/exports/{export_id}",
    dependencies=[needs(Scope.ACCOUNT_READ)],
    summary="Read an export",
    responses=problems(404, 422),
)
async def read(export_id: uuid.UUID, user_id: CurrentUserId, tx: TransactionDep) -> ExportOut:
    """How far an export is. Once it is stored, `GET /v1/certificates/{id}` has its certificate, which stays."""
    return ExportOut.of(await require_export(tx, user_id, export_id))


@router.get(
    "/exports/{export_id}/file",
    dependencies=[needs(Scope.ACCOUNT_READ), expensive],
    summary="Download an export",
    response_class=StreamingResponse,
    responses=problems(404, 409, 422) | bytes_of("application/zip"),
)
async def file(export_id: uuid.UUID, identity: CurrentIdentity, resources: ResourcesDep) -> StreamingResponse:
    """The file of an export, as long as it is kept. That of a project needs the scope `builds:read` too."""
    async with request_transaction(resources.sessions) as tx:
        export = await require_export(tx, identity.user_id, export_id)
    if export.project_id is not None:
        require_scope(identity, Scope.BUILDS_READ)
    key = require_file(export)
    of = "account" if export.project_id is None else f"project-{export.project_id}"
    name = f"{of}-{export.requested_at:%Y%m%d}.zip"
    headers = NEVER_CHANGES | {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Content-Length": f"{export.bytes}",
    }
    return await stream_file(resources.store.stream(key), "application/zip", headers)


async def _create(
    resources: Resources, user_id: str, project_id: uuid.UUID | None, key: str | None, response: Response
) -> ExportOut:
    export = await request_export(resources.sessions, resources.workflows, user_id, project_id, key)
    response.headers["Location"] = f"/v1/exports/{export.id}"
    return ExportOut.of(export)
