"""What a build left in the object store: its workspace's snapshots and the gate's screenshots."""

import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from enum import StrEnum

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from api.deps import CurrentUserId, ServicesDep, Transaction, transaction_of
from api.responses import problems
from api.routes.builds import find_or_404
from api.schemas import SnapshotList, SnapshotOut
from db.builds import find_screenshots, list_snapshots
from domain.errors import NotFound

router = APIRouter(prefix="/builds/{build_id}", tags=["workspaces"])


class Viewport(StrEnum):
    """The sizes that the gate looks at."""

    DESKTOP = "desktop"
    MOBILE = "mobile"


@router.get("/snapshots", summary="List the snapshots", responses=problems(404, 422))
async def snapshots(build_id: uuid.UUID, user_id: CurrentUserId, session: Transaction) -> SnapshotList:
    """The current one first."""
    await find_or_404(session, user_id, build_id)
    return SnapshotList(snapshots=[SnapshotOut.of(row) for row in await list_snapshots(session, build_id)])


@router.get(
    "/archive",
    summary="Download the workspace",
    response_class=StreamingResponse,
    responses=problems(404, 422, 503) | {200: {"content": {"application/gzip": {}}, "description": "A tar.gz."}},
)
async def archive(build_id: uuid.UUID, user_id: CurrentUserId, services: ServicesDep) -> StreamingResponse:
    """The workspace as the current snapshot has it, `.git` included."""
    async with transaction_of(services.sessions) as session:
        await find_or_404(session, user_id, build_id)
        stored = await list_snapshots(session, build_id)
    if not stored:
        raise NotFound(f"Build {build_id} has no snapshot yet.")
    headers = {
        "Content-Disposition": f'attachment; filename="workspace-{build_id}.tar.gz"',
        "ETag": f'"{stored[0].archive_sha256}"',
    }
    return await _streamed(services.store.stream(stored[0].archive_key), "application/gzip", headers)


@router.get(
    "/screenshots/{viewport}",
    summary="See the product",
    response_class=StreamingResponse,
    responses=problems(404, 422, 503) | {200: {"content": {"image/webp": {}}, "description": "A picture."}},
)
async def screenshot(
    build_id: uuid.UUID, viewport: Viewport, user_id: CurrentUserId, services: ServicesDep
) -> StreamingResponse:
    """The product's page as the last evidence gate saw it."""
    async with transaction_of(services.sessions) as session:
        await find_or_404(session, user_id, build_id)
        keys = await find_screenshots(session, build_id)
    if viewport not in keys:
        raise NotFound(f"Build {build_id} has no {viewport} screenshot; the evidence gate takes them.")
    return await _streamed(services.store.stream(keys[viewport]), "image/webp")


async def _streamed(
    content: AsyncGenerator[bytes, None], media_type: str, headers: dict[str, str] | None = None
) -> StreamingResponse:
    """The content as a response. Its first piece is read here, while an error can still become an answer."""
    first = await anext(content, b"")

    async def pieces() -> AsyncIterator[bytes]:
        async with aclosing(content):
            yield first
            async for piece in content:
                yield piece

    return StreamingResponse(pieces(), media_type=media_type, headers=headers)
