"""One process in a sandbox, and the streams of its listeners.

As in envd, output goes to the listeners of the moment and is not replayed. A listener that reads slowly slows down the
process, not the server. A listener that leaves does not end the process.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import stat
import struct
import termios
from typing import Literal

from local.sandbox import channel
from local.sandbox.guest_link import GuestLink

CHUNK_BYTES = 1 << 15
BACKLOG_ITEMS = 64
"""Let the process wait when a listener has this many unread items: 2 MB, with `CHUNK_BYTES` each."""

KILLED_DRAIN_SECONDS = 0.2
REMEMBERED_SECONDS = 30.0
"""Keep the exit code of an ended process this long."""

_PTMX = os.makedev(5, 2)
"""The device that hands out terminals."""

StreamName = Literal["stdout", "stderr", "pty"]


class Output:
    """A piece of the process's output."""

    def __init__(self, stream: StreamName, data: bytes) -> None:
        self.stream = stream
        self.data = data


class Ended:
    """The process's end. `code` is negative if a signal ended it."""

    def __init__(self, code: int) -> None:
        self.code = code

    @property
    def status(self) -> str:
        if self.code >= 0:
            return f"exit status {self.code}"
        try:
            return f"signal: {signal.Signals(-self.code).name}"
        except ValueError:
            return f"signal: {-self.code}"


class StreamsLost(Exception):
    """The sandbox was paused, stopped or lost while a listener was attached."""


class Listener:
    """A bounded mailbox between the process and one of its listeners."""

    def __init__(self) -> None:
        self._items: asyncio.Queue[Output | Ended | StreamsLost] = asyncio.Queue(BACKLOG_ITEMS)
        self._left = False

    async def put(self, item: Output | Ended) -> None:
        if not self._left:
            await self._items.put(item)

    @property
    def empty(self) -> bool:
        return self._items.empty()

    async def next(self) -> Output | Ended:
        """Wait for the next item. Raises `StreamsLost`."""
        item = await self._items.get()
        if isinstance(item, StreamsLost):
            raise item
        return item

    def leave(self) -> None:
        """Take no more items. A process that waits for room in the mailbox continues."""
        self._left = True
        while not self._items.empty():
            self._items.get_nowait()

    def lose(self, reason: str) -> None:
        self.leave()
        self._items.put_nowait(StreamsLost(reason))


class StdinClosed(Exception):
    """The process has no stdin, or has closed it."""


class Stdin:
    """The writing end of a process's stdin. Waits while the pipe is full, without blocking a thread."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor: int | None = descriptor
        self._order = asyncio.Lock()
        self._room: asyncio.Future[None] | None = None

    async def write(self, data: bytes) -> None:
        """Write everything, after all earlier writes. Raises `StdinClosed`."""
        rest = memoryview(data)
        async with self._order:
            while rest:
                if self._descriptor is None:
                    raise StdinClosed
                try:
                    rest = rest[os.write(self._descriptor, rest) :]
                except BlockingIOError:
                    await self._until_room(self._descriptor)
                except BrokenPipeError as error:
                    raise StdinClosed from error

    async def close(self) -> None:
        """Close stdin after all earlier writes."""
        async with self._order:
            self.abandon()

    def abandon(self) -> None:
        """Close at once. A write that has not finished raises `StdinClosed`."""
        self._wake()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    async def _until_room(self, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        self._room = loop.create_future()
        loop.add_writer(descriptor, self._wake)
        try:
            await self._room
        finally:
            self._wake()

    def _wake(self) -> None:
        if self._room is not None and self._descriptor is not None:
            asyncio.get_running_loop().remove_writer(self._descriptor)
            if not self._room.done():
                self._room.set_result(None)
            self._room = None


class Command:
    """A process started through the API. Make one with `Command.start`."""

    def __init__(self, pid: int, argv: list[str], envs: dict[str, str], cwd: str | None, tag: str | None) -> None:
        self.pid = pid
        self.argv = argv
        self.envs = envs
        """Variables of the request, added to the sandbox's own environment."""
        self.cwd = cwd
        self.tag = tag
        self.stdin: Stdin | None = None
        self.terminal: int | None = None
        """A descriptor of our end of its terminal, if it has one."""
        self.ended: Ended | None = None
        self._link: GuestLink
        self._listeners: set[Listener] = set()
        self._signalled = False
        self.finished: asyncio.Task[None]
        """Done when the process has ended and every listener has been notified."""

    @classmethod
    async def start(
        cls,
        link: GuestLink,
        argv: list[str],
        *,
        env: dict[str, str],
        envs: dict[str, str],
        cwd: str | None,
        tag: str | None,
        with_stdin: bool,
        listener: Listener,
    ) -> "Command":
        """Start a process with `env | envs`. The listener gets all of its output.

        Raises OSError with the guest's reason: no such program, no such directory, too many processes.
        """
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        ours, theirs = [out_read, err_read], [out_write, err_write]
        stdin = None
        if with_stdin:
            in_read, in_write = os.pipe2(os.O_CLOEXEC)
            theirs.append(in_read)
            stdin = Stdin(in_write)
        try:
            reply, exit_code = await link.spawn(theirs, argv, env | envs, cwd or "")
        except BaseException:
            for descriptor in ours:
                os.close(descriptor)
            if stdin:
                stdin.abandon()
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        command = cls(int(reply.value), argv, envs, cwd, tag)
        command.stdin = stdin
        command._begin(link, listener, exit_code, {"stdout": out_read, "stderr": err_read})
        return command

    @classmethod
    async def start_in_terminal(
        cls,
        link: GuestLink,
        argv: list[str],
        *,
        env: dict[str, str],
        envs: dict[str, str],
        cwd: str | None,
        tag: str | None,
        size: tuple[int, int],
        listener: Listener,
    ) -> "Command":
        """Start a process in a terminal of this many columns and rows. Raises as `start`."""
        reply, exit_code = await link.spawn([], argv, env | envs, cwd or "", size)
        if len(reply.descriptors) != 1 or not _is_terminal(reply.descriptors[0]):
            channel.close_all(reply.descriptors)
            raise OSError(errno.EIO, "the sandbox's reply has no terminal")
        [terminal] = reply.descriptors
        command = cls(int(reply.value), argv, envs, cwd, tag)
        command.stdin = Stdin(os.dup(terminal))
        command.terminal = os.dup(terminal)
        command._begin(link, listener, exit_code, {"pty": terminal})
        return command

    def _begin(
        self,
        link: GuestLink,
        listener: Listener,
        exit_code: asyncio.Future[int | None],
        streams: dict[StreamName, int],
    ) -> None:
        self._link = link
        self._listeners.add(listener)
        self.finished = asyncio.create_task(self._run(exit_code, streams))

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of its terminal. Raises OSError (ENOTTY) if it has none."""
        if self.terminal is None:
            raise OSError(errno.ENOTTY, f"process with pid {self.pid} has no terminal")
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def attach(self, listener: Listener) -> None:
        """Send a listener all output from now on. The stream of an ended process is its end alone."""
        self._listeners.add(listener)

    def detach(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        listener.leave()

    async def signal(self, number: int) -> None:
        """Signal this process, not its children, as envd does. Raises OSError (ESRCH) if it has ended."""
        await self._link.call("signal", pid=self.pid, number=number)
        self._signalled = True

    def lose_listeners(self, reason: str) -> None:
        """End every stream. The process continues."""
        for listener in self._listeners:
            listener.lose(reason)
        self._listeners.clear()

    async def abandon(self, reason: str) -> None:
        """End the streams and close the pipes, after the sandbox's processes have ended."""
        self.lose_listeners(reason)
        self.finished.cancel()
        await asyncio.wait([self.finished])

    async def _run(self, exit_code: asyncio.Future[int | None], streams: dict[StreamName, int]) -> None:
        pumps = [asyncio.create_task(self._pump(stream, descriptor)) for stream, descriptor in streams.items()]
        try:
            code = await exit_code
            if code is None:
                return
            # As in envd: after a normal exit, read until both pipes close (its children may hold them open). After a
            # signal, read only what is in the pipes already.
            await asyncio.wait(pumps, timeout=KILLED_DRAIN_SECONDS if self._signalled else None)
            self.ended = Ended(code)
            await self._publish(self.ended)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)
            if self.stdin:
                self.stdin.abandon()
            if self.terminal is not None:
                os.close(self.terminal)
                self.terminal = None

    async def _pump(self, stream: StreamName, descriptor: int) -> None:
        reader = asyncio.StreamReader(limit=CHUNK_BYTES)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0)
        )
        with contextlib.closing(transport), contextlib.suppress(OSError):  # a terminal ends with EIO
            while data := await reader.read(CHUNK_BYTES):
                await self._publish(Output(stream, data))

    async def _publish(self, item: Output | Ended) -> None:
        for listener in list(self._listeners):
            await listener.put(item)


def _is_terminal(descriptor: int) -> bool:
    """Whether it is our end of a terminal. Anything else that comes from a sandbox could block its reader."""
    status = os.fstat(descriptor)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == _PTMX
