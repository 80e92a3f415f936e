"""A build's files in the object store: snapshots of its workspace, and the gate's screenshots."""

import uuid
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse

from api.deps import CurrentUserId, Resources, ResourcesDep, TransactionDep, expensive, needs
from api.file_response import bytes_of, stream_file
from api.responses import problems
from api.schemas import ScreenshotList, ScreenshotOut, SnapshotList, SnapshotOut, Viewport
from clients.zip_stream import as_zip
from db.builds import list_snapshots
from db.gate_runs import find_screenshots
from db.models import Snapshot
from db.transaction import request_transaction
from domain.errors import NotFound
from domain.identity import Scope
from services.builds import require_build
from services.stored_snapshots import require_snapshot

router = APIRouter(prefix="/builds/{build_id}", tags=["workspaces"])


class ArchiveFormat(StrEnum):
    """How a workspace is downloaded."""

    TAR_GZ = "tar.gz"
    ZIP = "zip"


_MEDIA_TYPES = {ArchiveFormat.TAR_GZ: "application/gzip", ArchiveFormat.ZIP: "application/zip"}

Format = Annotated[ArchiveFormat, Query(alias="format", description="tar.gz is the archive as stored.")]


_ARCHIVE = bytes_of(*_MEDIA_TYPES.values())


@router.get(
    "/snapshots", dependencies=[needs(Scope.BUILDS_READ)], summary="List the snapshots", responses=problems(404, 422)
)
async def snapshots(build_id: uuid.UUID, user_id: CurrentUserId, tx: TransactionDep) -> SnapshotList:
    """The snapshots that can be downloaded, the current one first."""
    await require_build(tx, user_id, build_id)
    return SnapshotList(snapshots=[SnapshotOut.of(row) for row in await list_snapshots(tx, build_id)])


@router.get(
    "/snapshots/current/archive",
    dependencies=[needs(Scope.BUILDS_READ), expensive],
    summary="Download the workspace",
    response_class=StreamingResponse,
    responses=problems(404, 422) | _ARCHIVE,
)
async def current_archive(
    build_id: uuid.UUID, user_id: CurrentUserId, resources: ResourcesDep, archive_format: Format = ArchiveFormat.TAR_GZ
) -> StreamingResponse:
    """The workspace of the current snapshot, `.git` included."""
    async with request_transaction(resources.sessions) as tx:
        await require_build(tx, user_id, build_id)
        snapshot = await require_snapshot(tx, build_id, None)
    return await _download(resources, snapshot, archive_format)


@router.get(
    "/snapshots/{number}/archive",
    dependencies=[needs(Scope.BUILDS_READ), expensive],
    summary="Download a snapshot",
    response_class=StreamingResponse,
    responses=problems(404, 409, 422) | _ARCHIVE,
)
async def archive(
    build_id: uuid.UUID,
    number: Annotated[int, Path(ge=1, le=2**31 - 1)],
    user_id: CurrentUserId,
    resources: ResourcesDep,
    archive_format: Format = ArchiveFormat.TAR_GZ,
) -> StreamingResponse:
    """The workspace of this snapshot, `.git` included."""
    async with request_transaction(resources.sessions) as tx:
        await require_build(tx, user_id, build_id)
        snapshot = await require_snapshot(tx, build_id, number)
    return await _download(resources, snapshot, archive_format)


@router.get(
    "/screenshots",
    dependencies=[needs(Scope.BUILDS_READ)],
    summary="List the screenshots",
    responses=problems(404, 422),
)
async def screenshots(build_id: uuid.UUID, user_id: CurrentUserId, tx: TransactionDep) -> ScreenshotList:
    """The screenshots of the last evidence gate; none before the first gate."""
    await require_build(tx, user_id, build_id)
    keys = await find_screenshots(tx, build_id)
    viewports = [viewport for viewport in Viewport if viewport in keys]
    return ScreenshotList(
        screenshots=[
            ScreenshotOut(viewport=viewport, path=f"/v1/builds/{build_id}/screenshots/{viewport}")
            for viewport in viewports
        ]
    )


@router.get(
    "/screenshots/{viewport}",
    dependencies=[needs(Scope.BUILDS_READ)],
    summary="Download a screenshot",
    response_class=StreamingResponse,
    responses=problems(404, 422) | bytes_of("image/webp"),
)
async def screenshot(
    build_id: uuid.UUID, viewport: Viewport, user_id: CurrentUserId, resources: ResourcesDep
) -> StreamingResponse:
    """The product's page at the last evidence gate."""
    async with request_transaction(resources.sessions) as tx:
        await require_build(tx, user_id, build_id)
        keys = await find_screenshots(tx, build_id)
    if viewport not in keys:
        raise NotFound(f"Build {build_id} has no {viewport} screenshot yet. The evidence gate takes them.")
    headers = {"Content-Disposition": f'inline; filename="{viewport}-{build_id}.webp"'}
    return await stream_file(resources.store.stream(keys[viewport]), "image/webp", headers)


async def _download(resources: Resources, snapshot: Snapshot, archive_format: ArchiveFormat) -> StreamingResponse:
    archive = resources.store.stream(snapshot.archive_key)
    name = f"workspace-{snapshot.build_id}-{snapshot.number}.{archive_format}"
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "ETag": f'"{snapshot.archive_sha256}-{archive_format}"',
    }
    if archive_format is ArchiveFormat.TAR_GZ and snapshot.archive_bytes is not None:
        headers["Content-Length"] = str(snapshot.archive_bytes)
    content = as_zip(archive) if archive_format is ArchiveFormat.ZIP else archive
    return await stream_file(content, _MEDIA_TYPES[archive_format], headers)
