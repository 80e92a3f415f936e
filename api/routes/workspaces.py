"""A build's files in the object store: snapshots of its workspace, and screenshots of the product."""

import uuid
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse

from api.deps import CurrentUserId, Resources, ResourcesDep, TransactionDep, expensive, needs
from api.file_response import NEVER_CHANGES, bytes_of, stream_file
from api.paging import PAGE_MAX
from api.responses import problems
from api.schemas import ScreenshotList, ScreenshotOut, SnapshotList, SnapshotOut, Viewport
from clients.zip_stream import as_zip
from db.builds import list_snapshots
from db.gate_runs import find_screenshots
from db.models import Snapshot
from db.transaction import request_transaction
from domain.answer_blocks import ID
from domain.errors import NotFound
from domain.identity import Scope
from domain.screenshots import ScreenshotKind
from services.builds import require_build
from services.screenshots import find_kept, find_screenshot, list_screenshots
from services.stored_snapshots import require_snapshot

router = APIRouter(prefix="/builds/{build_id}", tags=["workspaces"])


class ArchiveFormat(StrEnum):
    """How a workspace is downloaded."""

    TAR_GZ = "tar.gz"
    ZIP = "zip"


_MEDIA_TYPES = {ArchiveFormat.TAR_GZ: "application/gzip", ArchiveFormat.ZIP: "application/zip"}

Format = Annotated[ArchiveFormat, Query(alias="format", description="tar.gz is the archive as stored.")]


_SCREENSHOT = f"^{ID.pattern}(-[1-9])?$"
"""An id of a screenshot: that of a tool call with a number, or `gate-1-desktop`."""

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
async def screenshots(
    build_id: uuid.UUID,
    user_id: CurrentUserId,
    resources: ResourcesDep,
    kind: Annotated[ScreenshotKind | None, Query(description="Only those of evidence gates, or of the agent.")] = None,
    before: Annotated[
        str | None, Query(pattern=_SCREENSHOT, description="Only what is older than the screenshot with this id.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX, description="The number of screenshots at most.")] = 50,
) -> ScreenshotList:
    """All that a browser has taken of the product, the newest first: in evidence gates, and when the agent looked."""
    async with request_transaction(resources.sessions) as tx:
        await require_build(tx, user_id, build_id)
        found = [each for each in await list_screenshots(tx, build_id) if kind in (None, each.kind)]
    if before is not None:
        found = found[next((at for at, each in enumerate(found, start=1) if each.id == before), len(found)) :]
    listed = found[:limit]
    kept = await find_kept(resources.store, listed)
    return ScreenshotList(
        screenshots=[ScreenshotOut.of(build_id, each, kept[each.key]) for each in listed],
        next_before=listed[-1].id if len(found) > limit else None,
    )


@router.get(
    "/screenshots/{screenshot_id}",
    dependencies=[needs(Scope.BUILDS_READ)],
    summary="Download a screenshot",
    response_class=StreamingResponse,
    responses=problems(404, 422) | bytes_of("image/webp"),
)
async def screenshot(
    build_id: uuid.UUID,
    screenshot_id: Annotated[
        str,
        Path(
            pattern=_SCREENSHOT,
            description="Its id; or `desktop` or `mobile`, which is that of the last evidence gate with screenshots.",
        ),
    ],
    user_id: CurrentUserId,
    resources: ResourcesDep,
) -> StreamingResponse:
    """A picture of the product's page."""
    headers = {"Content-Disposition": f'inline; filename="{screenshot_id}-{build_id}.webp"'}
    async with request_transaction(resources.sessions) as tx:
        await require_build(tx, user_id, build_id)
        if screenshot_id in set(Viewport):
            key = (await find_screenshots(tx, build_id)).get(screenshot_id)
            missing = f"Build {build_id} has no {screenshot_id} screenshot yet. The evidence gate takes them."
        else:
            found = await find_screenshot(tx, build_id, screenshot_id)
            key = None if found is None else found.key
            missing = f"Build {build_id} has no screenshot {screenshot_id}."
            headers |= NEVER_CHANGES
    if key is None:
        raise NotFound(missing)
    try:
        return await stream_file(resources.store.stream(key), "image/webp", headers)
    except NotFound:
        raise NotFound(f"Screenshot {screenshot_id} of build {build_id} is no longer kept.") from None


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
