"""A build's live feed as server-sent events."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from typing import Annotated

import structlog
from fastapi import APIRouter, Header, Query, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from api.deps import CurrentUserId, Services, ServicesDep, transaction_of
from api.errors import Problem
from api.responses import problems
from api.routes.builds import find_or_404
from db.events import FeedPage, read_feed
from db.models import Event

log = structlog.get_logger(__name__)

router = APIRouter(tags=["events"])

_POLL_SECONDS = 5.0
"""Without a nudge, readers look by themselves: a NOTIFY may be lost with its listener."""

_HEARTBEAT_SECONDS = 15
_SLOW_READER_SECONDS = 60
"""A reader that takes nothing for so long is dropped; it comes back with its Last-Event-ID."""


@router.get(
    "/builds/{build_id}/events",
    summary="Follow a build",
    response_class=EventSourceResponse,
    responses=problems(404, 422) | {204: {"description": "The build is closed and nothing follows: don't reconnect."}},
)
async def follow(
    build_id: uuid.UUID,
    user_id: CurrentUserId,
    services: ServicesDep,
    after: Annotated[int, Query(ge=0, le=2**63 - 1, description="Only what follows this event.")] = 0,
    last_event_id: Annotated[
        int | None, Header(ge=0, le=2**63 - 1, description="As `after`; browsers send it when they reconnect.")
    ] = None,
) -> Response:
    """What has happened and what happens, in order, until the build is closed.

    `id` is the event's id, `event` its type, `data` a JSON object of `turn`, `created_at` and `data`.
    """
    start = after if last_event_id is None else last_event_id
    async with transaction_of(services.sessions) as session:
        await find_or_404(session, user_id, build_id)
        page = await read_feed(session, build_id, start, limit=1)
    if page.is_last and not page.events:
        return Response(status_code=204)
    return EventSourceResponse(
        _feed(services, build_id, start),
        ping=_HEARTBEAT_SECONDS,
        send_timeout=_SLOW_READER_SECONDS,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _feed(services: Services, build_id: uuid.UUID, after: int) -> AsyncIterator[ServerSentEvent]:
    with services.nudges.of(str(build_id)) as nudged:
        while True:
            nudged.clear()  # before reading: what is announced from here on is read in the next round
            page = await _read(services, build_id, after)
            for event in page.events:
                yield _sent(event)
                after = event.id
            if page.is_last:
                return
            if not page.events:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(nudged.wait(), _POLL_SECONDS)


async def _read(services: Services, build_id: uuid.UUID, after: int) -> FeedPage:
    try:
        async with transaction_of(services.sessions) as session:
            return await read_feed(session, build_id, after)
    except Problem as problem:
        # A stream can't answer with an error any more. It stays silent until the database is back.
        log.warning("cannot read the feed", build_id=str(build_id), error=problem.detail)
        return FeedPage([], is_last=False)


def _sent(event: Event) -> ServerSentEvent:
    data = {"turn": event.turn, "created_at": event.created_at.isoformat(), "data": event.data}
    return ServerSentEvent(id=str(event.id), event=event.type, data=json.dumps(data, separators=(",", ":")))
