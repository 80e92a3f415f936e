"""A build's live feed as server-sent events."""

import uuid
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Header, Query, Response
from pydantic import StringConstraints
from sse_starlette import EventSourceResponse
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Send
from starlette.types import Scope as ConnectionScope

from api.conversation_schemas import EventList, EventOut
from api.deps import CurrentIdentity, CurrentUserId, ResourcesDep, TransactionDep, limited_as, needs
from api.responses import account_item_schema, events_table, feed_item_schema, problems
from db.events import read_past
from db.transaction import request_transaction
from domain.identity import Scope
from observing import metrics
from services.builds import require_build

PAGE_MOST = 500
"""Events in one page at most."""

log = structlog.get_logger(__name__)

router = APIRouter(tags=["events"])

_HEARTBEAT_SECONDS = 15.0
_SLOW_VIEWER_SECONDS = 30.0
"""Drop a viewer that has taken nothing for this long; it comes back with its Last-Event-ID."""
_RETRY = b"retry: 2000\n\n"
"""How long a browser waits before it reconnects, in milliseconds. Each stream begins with it."""
_ENDING_SECONDS = 4.0
"""A feed ends by itself when the server stops. One that has not after this many seconds is cut short."""


class _Feed(EventSourceResponse):
    """The stream. Counts as open until it ends. Logs a dropped viewer instead of reporting an error."""

    def __init__(self, events: AsyncGenerator[bytes, None], counted: ExitStack, **options: Any) -> None:
        super().__init__(events, **options)
        self._counted = counted

    async def __call__(self, scope: ConnectionScope, receive: Receive, send: Send) -> None:
        with self._counted:
            try:
                await super().__call__(scope, receive, send)
            except SendTimeoutError:
                log.info("dropped a viewer that took nothing", path=scope["path"])


@router.get(
    "/builds/{build_id}/events",
    dependencies=[needs(Scope.BUILDS_READ)],
    summary="Follow a build",
    response_class=EventSourceResponse,
    responses=problems(404, 422)
    | {
        200: {
            "description": f"The feed. Programs ignore events that they do not know.\n\n{events_table()}",
            "content": {
                "text/event-stream": {
                    "schema": {"type": "string"},
                    # OpenAPI 3.2 calls it `itemSchema`; 3.1 has nothing for the events of a stream.
                    "x-item-schema": feed_item_schema(),
                    "example": 'id: 7\nevent: status\ndata: {"turn":null,"created_at":"2026-11-24T12:00:00+00:00",'
                    '"data":{"status":"code"}}\n\n',
                }
            },
        },
        204: {"description": "The build is closed and has no more events: don't reconnect."},
    },
)
async def follow(
    build_id: uuid.UUID,
    user_id: CurrentUserId,
    identity: CurrentIdentity,
    resources: ResourcesDep,
    after: Annotated[int, Query(ge=0, le=2**63 - 1, description="Only the events after this one.")] = 0,
    last_event_id: Annotated[
        int | None, Header(ge=0, le=2**63 - 1, description="Like `after`; browsers send it when they reconnect.")
    ] = None,
) -> Response:
    """Past and new events, in order, until the build is closed.

    `id` is the event's id, `event` its type, `data` a JSON object of `turn`, `created_at` and `data`. A comment is sent
    every 15 seconds. A stream may end before the build does: if its viewer is too slow or may not see the project any
    more, or if the API restarts. Continue it with `Last-Event-ID`: no event is lost or doubled.
    """
    start = after if last_event_id is None else last_event_id
    async with request_transaction(resources.sessions) as tx:
        build = await require_build(tx, user_id, build_id)
    if build.closed_at is not None and build.last_event_id <= start:
        return Response(status_code=204)
    counted = ExitStack()
    counted.enter_context(resources.limits.open_feed(limited_as(identity)))
    counted.enter_context(metrics.FEED_VIEWERS.labels("build").track_inprogress())
    return _Feed(
        _with_retry(resources.feeds.follow(build_id, start, identity)),
        counted,
        **_options(),
    )


@router.get(
    "/events",
    dependencies=[needs(Scope.BUILDS_READ)],
    summary="Follow all builds",
    response_class=EventSourceResponse,
    responses=problems(422)
    | {
        200: {
            "description": "The feed of the account. Programs ignore events that they do not know.",
            "content": {
                "text/event-stream": {
                    "schema": {"type": "string"},
                    "x-item-schema": account_item_schema(),
                    "example": 'event: build\ndata: {"build_id":"1b4e28ba-2fa1-41d2-883f-0016d3cca427",…}\n\n',
                }
            },
        }
    },
)
async def follow_all(identity: CurrentIdentity, resources: ResourcesDep) -> Response:
    """How each build stands that you may see, whenever that has changed: an event `build` with the whole state.

    Nothing is replayed: open this feed, then read the list of builds. An event `reload` says that changes may have been
    missed: read the list again. A comment is sent every 15 seconds. The feed ends with the key or sign-in that opened
    it, and if the API restarts.
    """
    counted = ExitStack()
    counted.enter_context(resources.limits.open_feed(limited_as(identity)))
    counted.enter_context(metrics.FEED_VIEWERS.labels("account").track_inprogress())
    return _Feed(resources.account_feeds.follow(identity, _RETRY), counted, **_options())


def _options() -> dict[str, Any]:
    return {
        "ping": _HEARTBEAT_SECONDS,
        "send_timeout": _SLOW_VIEWER_SECONDS,
        "shutdown_grace_period": _ENDING_SECONDS,
        "headers": {"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    }


async def _with_retry(events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        yield _RETRY
        async for batch in events:
            yield batch


@router.get(
    "/builds/{build_id}/past-events",
    dependencies=[needs(Scope.BUILDS_READ)],
    summary="List past events",
    responses=problems(404, 422),
)
async def past(
    build_id: uuid.UUID,
    user_id: CurrentUserId,
    tx: TransactionDep,
    before: Annotated[
        int | None, Query(ge=1, le=2**63 - 1, description="Only events before this one; left out for the newest.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_MOST, description="The number of events at most.")] = 100,
    type: Annotated[
        list[Annotated[str, StringConstraints(pattern="^[a-z_]{1,50}$")]],
        Query(max_length=50, description="Only events with one of these types."),
    ] = [],  # noqa: B006
) -> EventList:
    """A page of the build's feed, the newest event first. Read the past backwards from here, and follow the stream from
    the newest event on."""
    await require_build(tx, user_id, build_id)
    rows = await read_past(tx, build_id, before, type, limit + 1)
    listed = [EventOut.of(row) for row in rows[:limit]]
    return EventList(events=listed, next_before=listed[-1].id if len(rows) > limit else None)
