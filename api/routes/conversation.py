"""Read what a build's agent has said and done: its turns, the input and result of each tool call, and its progress."""

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse

from api.build_facts import read_queue_places
from api.conversation_schemas import ProgressOut, ToolCallOut, TurnList, TurnOut
from api.deps import CurrentUserId, IsOperator, ResourcesDep, TransactionDep, needs
from api.file_response import NEVER_CHANGES, bytes_of, stream_file
from api.responses import problems
from clients.object_store import image_key
from db.conversation import find_call, list_turns, shows_image
from db.progress import read_progress
from db.transaction import request_transaction
from domain.answer_blocks import ID
from domain.errors import NotFound
from domain.identity import Scope
from services.builds import require_build

router = APIRouter(prefix="/builds/{build_id}", tags=["conversation"])

PAGE_MOST = 100
"""Turns in one answer at most."""


@router.get("/turns", dependencies=[needs(Scope.BUILDS_READ)], summary="List the turns", responses=problems(404, 422))
async def turns(
    build_id: uuid.UUID,
    user_id: CurrentUserId,
    tx: TransactionDep,
    operator: IsOperator,
    before: Annotated[
        int | None, Query(ge=1, le=2**31 - 1, description="Only turns before this one; left out for the newest.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_MOST, description="The number of turns at most.")] = 20,
) -> TurnList:
    """What the agent has said in each turn, and the tool calls that it has made, the newest turn first."""
    await require_build(tx, user_id, build_id)
    rows = await list_turns(tx, build_id, before, limit + 1)
    listed = [TurnOut.of(row, operator=operator) for row in rows[:limit]]
    return TurnList(turns=listed, next_before=listed[-1].number if len(rows) > limit else None)


@router.get(
    "/tool-calls/{tool_use_id}",
    dependencies=[needs(Scope.BUILDS_READ)],
    summary="Read a tool call",
    responses=problems(404, 422),
)
async def tool_call(
    build_id: uuid.UUID,
    tool_use_id: Annotated[str, Path(pattern=f"^{ID.pattern}$")],
    user_id: CurrentUserId,
    tx: TransactionDep,
) -> ToolCallOut:
    """The input of a tool call, and its result once it is done. A call that is done does not change any more."""
    await require_build(tx, user_id, build_id)
    found = await find_call(tx, build_id, tool_use_id)
    if found is None:
        raise NotFound(f"Build {build_id} has no tool call {tool_use_id}. Its turns list them.")
    return ToolCallOut.of(*found)


@router.get(
    "/progress", dependencies=[needs(Scope.BUILDS_READ)], summary="Read the progress", responses=problems(404, 422)
)
async def progress(build_id: uuid.UUID, user_id: CurrentUserId, resources: ResourcesDep) -> ProgressOut:
    """How far the build has come: its counts, phases, evidence gates and sleeps, without reading its feed."""
    async with request_transaction(resources.sessions) as tx:
        build = await require_build(tx, user_id, build_id)
        read = await read_progress(tx, build_id)
        return ProgressOut.of(read, (await read_queue_places(tx, [build])).get(build.id))


_IMAGE: dict[int | str, dict[str, Any]] = bytes_of("image/webp")


@router.get(
    "/images/{sha256}",
    dependencies=[needs(Scope.BUILDS_READ)],
    summary="Download an image",
    response_class=StreamingResponse,
    responses=problems(404, 422) | _IMAGE,
)
async def image(
    build_id: uuid.UUID,
    sha256: Annotated[str, Path(pattern="^[0-9a-f]{64}$")],
    user_id: CurrentUserId,
    resources: ResourcesDep,
) -> StreamingResponse:
    """An image that a tool call of this build has returned, or that one of its evidence gates has taken."""
    key = image_key(sha256)
    async with request_transaction(resources.sessions) as tx:
        await require_build(tx, user_id, build_id)
        if not await shows_image(tx, build_id, sha256, key):
            raise NotFound(f"Build {build_id} has no image {sha256}.")
    headers = {"Content-Disposition": f'inline; filename="{sha256}.webp"', **NEVER_CHANGES}
    return await stream_file(resources.store.stream(key), "image/webp", headers)
