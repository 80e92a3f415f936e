"""envd's process service: start, list, connect to, feed, resize and signal processes."""

import asyncio
import contextlib
import errno
import signal
from collections.abc import AsyncIterator
from typing import Any

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from e2b.envd.process import process_pb as pb
from e2b.envd.process.process_connect import Process
from protobuf import Oneof

from local.sandbox.command import Command, Ended, Listener, Output, StdinClosed, StreamsLost
from local.sandbox.errors import rpc_error
from local.sandbox.guest_link import GuestLost
from local.sandbox.rpc import Context, check_user, current_sandbox, pause_before_keepalive

_MOST_CELLS = (1 << 16) - 1


class ProcessService(Process):
    """Messages and semantics are envd's. `command.py` describes the streams."""

    async def start(self, request: pb.StartRequest, ctx: Context) -> AsyncIterator[pb.StartResponse]:
        check_user(ctx.request_headers)
        config = request.process
        if config is None or not config.cmd:
            raise ConnectError(Code.INVALID_ARGUMENT, "a command is required")
        listener = Listener()
        try:
            command = await current_sandbox.get().start_command(
                [config.cmd, *config.args],
                envs=dict(config.envs),
                cwd=config.cwd if config.has_field("cwd") else None,
                tag=request.tag if request.has_field("tag") else None,
                with_stdin=request.stdin if request.has_field("stdin") else True,
                listener=listener,
                terminal=None if request.pty is None else _size(request.pty),
            )
        except OSError as error:
            raise _start_error(error) from error
        if (left := ctx.timeout_ms) is not None:  # the deadline ends the process; a disconnect does not
            _kill_after(command, left / 1000)
        async for event in _events(command, listener, ctx):
            yield pb.StartResponse(event=event)

    async def connect(self, request: pb.ConnectRequest, ctx: Context) -> AsyncIterator[pb.ConnectResponse]:
        command = _selected(request.process)
        listener = Listener()
        command.attach(listener)
        async for event in _events(command, listener, ctx):
            yield pb.ConnectResponse(event=event)

    async def list(self, request: pb.ListRequest, ctx: Context) -> pb.ListResponse:
        running = [command for command in current_sandbox.get().commands.values() if command.ended is None]
        return pb.ListResponse(processes=[_info(command) for command in running])

    async def send_input(self, request: pb.SendInputRequest, ctx: Context) -> pb.SendInputResponse:
        command = _selected(request.process)
        if request.input is not None and isinstance(request.input.input, Oneof):
            current_sandbox.get().note_input(command, request.input.input.value)
        await _write(command, request.input)
        return pb.SendInputResponse()

    async def stream_input(self, request: AsyncIterator[pb.StreamInputRequest], ctx: Context) -> pb.StreamInputResponse:
        command: Command | None = None
        async for message in request:
            match message.event.value if message.event is not None else None:
                case pb.StreamInputRequest.StartEvent() as start:
                    command = _selected(start.process)
                case pb.StreamInputRequest.DataEvent() as data:
                    if command is None:
                        raise ConnectError(Code.INVALID_ARGUMENT, "input before its process was named")
                    await _write(command, data.input)
        return pb.StreamInputResponse()

    async def close_stdin(self, request: pb.CloseStdinRequest, ctx: Context) -> pb.CloseStdinResponse:
        command = _selected(request.process)
        if command.stdin is not None:
            await command.stdin.close()
        return pb.CloseStdinResponse()

    async def send_signal(self, request: pb.SendSignalRequest, ctx: Context) -> pb.SendSignalResponse:
        number = int(request.signal)
        if number not in (signal.SIGKILL, signal.SIGTERM):
            raise ConnectError(Code.INVALID_ARGUMENT, f"signal {number} is not SIGTERM or SIGKILL")
        try:
            await _selected(request.process).signal(number)
        except OSError as error:
            raise rpc_error(error) from error
        return pb.SendSignalResponse()

    async def update(self, request: pb.UpdateRequest, ctx: Context) -> pb.UpdateResponse:
        command = _selected(request.process)
        if request.pty is not None:
            try:
                command.resize(*_size(request.pty))
            except OSError as error:
                raise ConnectError(Code.FAILED_PRECONDITION, error.strerror or str(error)) from error
        return pb.UpdateResponse()


def _size(terminal: pb.PTY) -> tuple[int, int]:
    """Columns and rows of a terminal."""
    size = terminal.size
    if size is None or not (0 < size.cols <= _MOST_CELLS and 0 < size.rows <= _MOST_CELLS):
        raise ConnectError(Code.INVALID_ARGUMENT, f"a terminal has 1 to {_MOST_CELLS} columns and rows")
    return size.cols, size.rows


def _start_error(error: OSError) -> ConnectError:
    """A missing program or directory is the caller's mistake, as in envd. A lack of room for a process is not."""
    if isinstance(error, GuestLost) or error.errno in (errno.EAGAIN, errno.ENOMEM):
        return rpc_error(error)
    return ConnectError(Code.INVALID_ARGUMENT, error.strerror or str(error))


def _selected(selector: pb.ProcessSelector | None) -> Command:
    commands = current_sandbox.get().commands
    match selector.selector if selector is not None else None:
        case Oneof(field="pid", value=int(pid)):
            if command := commands.get(pid):
                return command
            raise ConnectError(Code.NOT_FOUND, f"process with pid {pid} not found")
        case Oneof(field="tag", value=tag):
            if command := next((each for each in commands.values() if each.tag == tag and not each.ended), None):
                return command
            raise ConnectError(Code.NOT_FOUND, f"process with tag {tag} not found")
    raise ConnectError(Code.INVALID_ARGUMENT, "the request names no process; give its pid or tag")


async def _write(command: Command, message: pb.ProcessInput | None) -> None:
    match message.input if message is not None else None:
        case Oneof(field="stdin" | "pty" as field, value=data):
            if (field == "pty") != (command.terminal is not None):
                raise ConnectError(Code.FAILED_PRECONDITION, f"the process does not take input as {field}")
        case _:
            raise ConnectError(Code.INVALID_ARGUMENT, "no input")
    try:
        if command.stdin is None:
            raise StdinClosed
        await command.stdin.write(data)
    except StdinClosed as error:
        raise ConnectError(Code.FAILED_PRECONDITION, "the process's stdin is closed or was not enabled") from error


def _kill_after(command: Command, seconds: float) -> None:
    async def kill() -> None:
        await asyncio.sleep(seconds)
        with contextlib.suppress(OSError):
            await command.signal(signal.SIGKILL)

    timer = asyncio.create_task(kill())
    command.finished.add_done_callback(lambda _: timer.cancel())


def _info(command: Command) -> pb.ProcessInfo:
    config = pb.ProcessConfig(cmd=command.argv[0], args=command.argv[1:], envs=command.envs)
    if command.cwd is not None:
        config.cwd = command.cwd
    info = pb.ProcessInfo(pid=command.pid, config=config)
    if command.tag is not None:
        info.tag = command.tag
    return info


async def _events(command: Command, listener: Listener, ctx: Context) -> AsyncIterator[pb.ProcessEvent]:
    """The stream of one listener: the pid, output as it arrives, keep-alives while there is none, the end."""
    try:
        yield _event("start", pb.ProcessEvent.StartEvent(pid=command.pid))
        item: Output | Ended | None = command.ended if listener.empty else None
        while not isinstance(item, Ended):
            pause = pause_before_keepalive(ctx, "command")
            try:
                async with asyncio.timeout(pause):
                    item = await listener.next()
            except TimeoutError:
                yield _event("keepalive", pb.ProcessEvent.KeepAlive())
                continue
            except StreamsLost as error:
                reason = f"the connection to the sandbox ended before the stream completed: {error}"
                raise ConnectError(Code.UNAVAILABLE, reason) from error
            if isinstance(item, Output):
                output: Any = Oneof(item.stream, item.data)
                yield _event("data", pb.ProcessEvent.DataEvent(output=output))
        yield _event("end", _end_event(item))
    finally:
        command.detach(listener)


def _event(field: str, value: Any) -> pb.ProcessEvent:
    event: Any = Oneof(field, value)  # the generated types accept only literal names
    return pb.ProcessEvent(event=event)


def _end_event(end: Ended) -> pb.ProcessEvent.EndEvent:
    event = pb.ProcessEvent.EndEvent(exit_code=max(end.code, -1), exited=end.code >= 0, status=end.status)
    if end.code:
        event.error = end.status
    return event
