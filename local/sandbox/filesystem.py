"""envd's filesystem service: list, stat, make, move, remove and watch.

`files.py` moves the contents.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from e2b.envd.filesystem import filesystem_pb as pb
from e2b.envd.filesystem.filesystem_connect import Filesystem
from protobuf import Oneof
from protobuf.wkt import Timestamp

from local.sandbox.errors import rpc_error
from local.sandbox.rpc import USER, Context, check_user, client_left, current_sandbox, pause_before_keepalive
from local.sandbox.sandbox import TooManyWatchers
from local.sandbox.watcher import Event, WatchEnded, Watcher


class FilesystemService(Filesystem):
    """Every path is resolved by the sandbox's own pid 1, inside the sandbox."""

    async def stat(self, request: pb.StatRequest, ctx: Context) -> pb.StatResponse:
        return pb.StatResponse(entry=_entry(await _call(ctx, "stat", path=request.path)))

    async def make_dir(self, request: pb.MakeDirRequest, ctx: Context) -> pb.MakeDirResponse:
        return pb.MakeDirResponse(entry=_entry(await _call(ctx, "make_directory", path=request.path)))

    async def move(self, request: pb.MoveRequest, ctx: Context) -> pb.MoveResponse:
        moved = await _call(ctx, "move", source=request.source, destination=request.destination)
        return pb.MoveResponse(entry=_entry(moved))

    async def list_dir(self, request: pb.ListDirRequest, ctx: Context) -> pb.ListDirResponse:
        entries = await _call(ctx, "list", path=request.path, depth=request.depth or 1)
        return pb.ListDirResponse(entries=[_entry(entry) for entry in entries])

    async def remove(self, request: pb.RemoveRequest, ctx: Context) -> pb.RemoveResponse:
        await _call(ctx, "remove", path=request.path)
        return pb.RemoveResponse()

    async def watch_dir(self, request: pb.WatchDirRequest, ctx: Context) -> AsyncIterator[pb.WatchDirResponse]:
        sandbox = current_sandbox.get()
        watcher = await _watch(ctx, request)
        client_left.get().add_done_callback(lambda _: watcher.end("the client left"))
        sandbox.watch_streams.add(watcher)
        try:
            yield _response("start", pb.WatchDirResponse.StartEvent())
            while True:
                pause = pause_before_keepalive(ctx, "watch")
                try:
                    async with asyncio.timeout(pause):
                        event = await watcher.next()
                except TimeoutError:
                    yield _response("keepalive", pb.WatchDirResponse.KeepAlive())
                    continue
                except WatchEnded as error:
                    raise _ended(error, sandbox.running) from error
                yield _response("filesystem", _event(event))
        finally:
            sandbox.watch_streams.discard(watcher)
            watcher.end("the stream ended")

    async def create_watcher(self, request: pb.CreateWatcherRequest, ctx: Context) -> pb.CreateWatcherResponse:
        watcher = await _watch(ctx, request)
        watcher_id = secrets.token_hex(8)
        current_sandbox.get().watchers[watcher_id] = watcher
        return pb.CreateWatcherResponse(watcher_id=watcher_id)

    async def get_watcher_events(
        self, request: pb.GetWatcherEventsRequest, ctx: Context
    ) -> pb.GetWatcherEventsResponse:
        try:
            events = _watcher(request.watcher_id).take()
        except WatchEnded as error:
            raise _ended(error, current_sandbox.get().running) from error
        return pb.GetWatcherEventsResponse(events=[_event(event) for event in events])

    async def remove_watcher(self, request: pb.RemoveWatcherRequest, ctx: Context) -> pb.RemoveWatcherResponse:
        _watcher(request.watcher_id).end("the watcher was removed")
        del current_sandbox.get().watchers[request.watcher_id]
        return pb.RemoveWatcherResponse()


_EVENTS = {
    "create": pb.EventType.CREATE,
    "write": pb.EventType.WRITE,
    "remove": pb.EventType.REMOVE,
    "rename": pb.EventType.RENAME,
    "chmod": pb.EventType.CHMOD,
}


async def _watch(ctx: Context, request: pb.WatchDirRequest | pb.CreateWatcherRequest) -> Watcher:
    check_user(ctx.request_headers)
    try:
        return await current_sandbox.get().watch(
            request.path, recursive=request.recursive, include_entry=request.include_entry
        )
    except TooManyWatchers as error:
        raise ConnectError(Code.FAILED_PRECONDITION, str(error)) from error
    except OSError as error:
        raise rpc_error(error) from error


def _watcher(watcher_id: str) -> Watcher:
    if watcher := current_sandbox.get().watchers.get(watcher_id):
        return watcher
    raise ConnectError(Code.NOT_FOUND, f"watcher with id {watcher_id} not found")


def _ended(error: WatchEnded, sandbox_runs: bool) -> ConnectError:
    return ConnectError(Code.DATA_LOSS if sandbox_runs else Code.UNAVAILABLE, f"the watch ended: {error}")


def _event(event: Event) -> pb.FilesystemEvent:
    """An event as the SDK reads it. It comes from inside the sandbox, so it may be anything."""
    if event.operation not in _EVENTS:
        raise ConnectError(Code.INTERNAL, "the sandbox's event is of no known kind")
    entry = None if event.entry is None else _entry(event.entry)
    return pb.FilesystemEvent(name=event.name, type=_EVENTS[event.operation], entry=entry)


def _response(field: str, value: Any) -> pb.WatchDirResponse:
    event: Any = Oneof(field, value)  # the generated types accept only literal names
    return pb.WatchDirResponse(event=event)


async def _call(ctx: Context, operation: str, **arguments: Any) -> Any:
    check_user(ctx.request_headers)
    try:
        return (await current_sandbox.get().call(operation, **arguments)).value
    except OSError as error:
        raise rpc_error(error) from error


def _entry(reply: Any) -> pb.EntryInfo:
    """Read pid 1's description of a file. It comes from inside the sandbox, so it may be anything."""
    try:
        entry = pb.EntryInfo(
            name=reply["name"],
            path=reply["path"],
            type=pb.FileType(reply["type"]),
            size=reply["size"],
            mode=reply["mode"],
            permissions=reply["permissions"],
            owner=USER,
            group=USER,
            modified_time=Timestamp.from_nanos(reply["mtime_ns"]),
            metadata=reply["metadata"],
            is_symlink=reply["symlink_target"] is not None,
        )
        if reply["symlink_target"] is not None:
            entry.symlink_target = reply["symlink_target"]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ConnectError(Code.INTERNAL, "the sandbox's reply does not describe a file") from error
    return entry
