"""envd's filesystem service: list, stat, make, move and remove. `files.py` moves the contents. No watching."""

from collections.abc import AsyncIterator
from typing import Any

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.request import RequestContext
from e2b.envd.filesystem import filesystem_pb as pb
from e2b.envd.filesystem.filesystem_connect import Filesystem
from protobuf.wkt import Timestamp

from local.sandbox.errors import rpc_error, rpc_not_served
from local.sandbox.rpc import USER, check_user, current_sandbox

Context = RequestContext[Any, Any]


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
        raise rpc_not_served("watching directories")
        yield  # type: ignore[unreachable]  # makes it a generator, which is what the protocol calls

    async def create_watcher(self, request: pb.CreateWatcherRequest, ctx: Context) -> pb.CreateWatcherResponse:
        raise rpc_not_served("watching directories")

    async def get_watcher_events(
        self, request: pb.GetWatcherEventsRequest, ctx: Context
    ) -> pb.GetWatcherEventsResponse:
        raise rpc_not_served("watching directories")

    async def remove_watcher(self, request: pb.RemoveWatcherRequest, ctx: Context) -> pb.RemoveWatcherResponse:
        raise rpc_not_served("watching directories")


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
