"""The files of a build's snapshots: list them, read one as text, download one."""

import contextlib
import uuid
from collections.abc import AsyncGenerator
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response, StreamingResponse

from api.deps import CurrentIdentity, CurrentUserId, Resources, ResourcesDep, limited_as, needs
from api.file_response import NEVER_CHANGES, bytes_of, stream_file
from api.file_schemas import FileContentOut, SnapshotFileList, SnapshotFileOut
from api.responses import problems
from db.models import Snapshot
from db.transaction import request_transaction
from domain.identity import Identity, Scope
from domain.request_limits import RequestClass
from domain.workspace_files import BINARY_TYPE, TEXT_MOST, picture_type, shown_content, shown_path
from services.builds import require_build
from services.snapshot_files import FoundFile, find_file, list_files, read_file
from services.stored_snapshots import require_snapshot

router = APIRouter(prefix="/builds/{build_id}/snapshots/{number}", tags=["workspaces"])

PAGE_MOST = 5_000
"""Files in one answer at most."""

CHEAP_BYTES = 32_000_000
"""Reading a file of a larger archive counts as an expensive request."""

CHEAP_UNPACKED_BYTES = 128_000_000
"""So does reading a file of an archive that unpacks to more."""

_LATEST = "latest"

Number = Annotated[
    str,
    Path(
        pattern=f"^({_LATEST}|[1-9][0-9]{{0,8}})$",
        description="The snapshot's number, or `latest` for the current one.",
        examples=["3", _LATEST],
    ),
]
FilePath = Annotated[
    str, Query(alias="path", min_length=1, max_length=4096, description="The file's path, as the list of files has it.")
]


@router.get(
    "/files",
    dependencies=[needs(Scope.BUILDS_READ)],
    summary="List the files of a snapshot",
    responses=problems(404, 409, 422),
)
async def files(
    build_id: uuid.UUID,
    number: Number,
    user_id: CurrentUserId,
    resources: ResourcesDep,
    response: Response,
    after: Annotated[
        int, Query(ge=0, le=2**31 - 1, description="`next_after` of the page before; left out for the first.")
    ] = 0,
    limit: Annotated[int, Query(ge=1, le=PAGE_MOST, description="The number of files at most.")] = 1_000,
) -> SnapshotFileList:
    """The files of the workspace when the snapshot was taken, sorted by path. Directories and `.git` are left out."""
    snapshot = await _stored_snapshot(resources, user_id, build_id, number)
    page = await list_files(resources.store, snapshot, after, limit)
    response.headers.update(_kept(number))
    return SnapshotFileList.of(snapshot, [SnapshotFileOut.of(entry) for entry in page.files], page.next_after)


@router.get(
    "/file",
    dependencies=[needs(Scope.BUILDS_READ)],
    summary="Read a file of a snapshot",
    responses=problems(404, 409, 422),
)
async def file(
    build_id: uuid.UUID,
    number: Number,
    path: FilePath,
    identity: CurrentIdentity,
    resources: ResourcesDep,
    response: Response,
) -> FileContentOut:
    """A file as text, up to its first megabyte. Links are not followed."""
    snapshot = await _stored_snapshot(resources, identity.user_id, build_id, number)
    found = await find_file(resources.store, snapshot, path)
    await _limit(resources, identity, snapshot, found)
    content = bytearray()
    async with contextlib.aclosing(read_file(resources.store, snapshot, found, resources.archive_searches)) as pieces:
        async for piece in pieces:
            content += piece
            if len(content) >= TEXT_MOST:
                break
    response.headers.update(_kept(number))
    shown = shown_content(bytes(content[:TEXT_MOST]), found.entry.size)
    return FileContentOut.with_content(snapshot, found.entry, shown)


@router.get(
    "/file/content",
    dependencies=[needs(Scope.BUILDS_READ)],
    summary="Download a file of a snapshot",
    response_class=StreamingResponse,
    responses=problems(404, 409, 422) | bytes_of(BINARY_TYPE, "image/png", "image/jpeg", "image/gif", "image/webp"),
)
async def content(
    build_id: uuid.UUID, number: Number, path: FilePath, identity: CurrentIdentity, resources: ResourcesDep
) -> StreamingResponse:
    """A file's bytes. A PNG, JPEG, GIF or WebP comes as such, anything else as an attachment without a type."""
    snapshot = await _stored_snapshot(resources, identity.user_id, build_id, number)
    found = await find_file(resources.store, snapshot, path)
    await _limit(resources, identity, snapshot, found)
    pieces = read_file(resources.store, snapshot, found, resources.archive_searches)
    first = await anext(pieces, b"")

    async def whole() -> AsyncGenerator[bytes, None]:
        async with contextlib.aclosing(pieces):
            yield first
            async for piece in pieces:
                yield piece

    media_type = picture_type(first)
    name = quote(shown_path(found.entry.path).rpartition("/")[2], safe="")
    headers = {
        "Content-Disposition": f"{'attachment' if media_type is None else 'inline'}; filename*=UTF-8''{name}",
        "Content-Length": str(found.entry.size),
        **_kept(number),
    }
    return await stream_file(whole(), media_type or BINARY_TYPE, headers)


async def _stored_snapshot(resources: Resources, user_id: str, build_id: uuid.UUID, number: str) -> Snapshot:
    async with request_transaction(resources.sessions) as tx:
        await require_build(tx, user_id, build_id)
        return await require_snapshot(tx, build_id, None if number == _LATEST else int(number))


async def _limit(resources: Resources, identity: Identity, snapshot: Snapshot, found: FoundFile) -> None:
    if (snapshot.archive_bytes or 0) > CHEAP_BYTES or found.unpacked_bytes > CHEAP_UNPACKED_BYTES:
        await resources.limits.take(limited_as(identity), RequestClass.EXPENSIVE)


def _kept(number: str) -> dict[str, str]:
    """The headers of an answer about this snapshot. A snapshot never changes; which one is the latest does."""
    return {} if number == _LATEST else NEVER_CHANGES
