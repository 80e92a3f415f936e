"""The server's end of the channel to one sandbox's pid 1.

Nothing that comes from the sandbox is trusted: an unexpected reply, or anything malformed, ends the sandbox. At most
`MAX_PENDING` calls are open at a time, so that neither side's memory depends on the number of clients.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from local.sandbox import channel

MAX_PENDING = 64


class GuestLost(OSError):
    """The sandbox's pid 1 is gone, or the sandbox was stopped during a call."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EPIPE, reason)
        self.reason = reason


@dataclass(frozen=True)
class Reply:
    """The reply to an operation. Its descriptors belong to the caller."""

    value: Any
    descriptors: Sequence[int] = ()


class GuestLink:
    """Calls operations of a guest. Use it from one event loop only.

    `on_lost` is called once, with a reason, if pid 1 ends by itself. It is not called after `close`.
    """

    def __init__(self, control: socket.socket, on_lost: Callable[[str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._control = control
        self._control.setblocking(False)
        self._on_lost = on_lost
        self._closed: str | None = None
        self._last_id = 0
        self._pending: dict[int, asyncio.Future[Reply]] = {}
        self._exits: dict[int, asyncio.Future[int | None]] = {}
        self._slots = asyncio.Semaphore(MAX_PENDING)
        self._sending = asyncio.Lock()
        self._writable: asyncio.Future[None] | None = None
        self._loop.add_reader(control, self._on_readable)

    async def call(self, operation: str, *descriptors: int, **arguments: Any) -> Reply:
        """Run one operation of `guest.py`.

        Raises OSError with the errno and message of the operation's failure, `GuestLost` if the guest is gone.
        """
        return await self._call(self._next_id(), operation, descriptors, arguments)

    async def spawn(
        self,
        descriptors: Sequence[int],
        argv: Sequence[str],
        env: dict[str, str],
        cwd: str,
        terminal: tuple[int, int] | None = None,
    ) -> tuple[Reply, asyncio.Future[int | None]]:
        """Start a process on descriptors for stdout, stderr and, optionally, stdin; or in a terminal of this many
        columns and rows, which is the reply's descriptor.

        The reply's value is its pid. The future is its exit code. Negative: the signal that ended it. None: the sandbox
        is gone.
        """
        call_id = self._next_id()
        # Register before sending: the exit of a quick process may arrive together with the reply.
        exit_code: asyncio.Future[int | None] = self._loop.create_future()
        self._exits[call_id] = exit_code
        try:
            arguments = {"argv": list(argv), "env": env, "cwd": cwd, "terminal": terminal}
            reply = await self._call(call_id, "spawn", descriptors, arguments)
        except BaseException:
            self._exits.pop(call_id, None)
            raise
        return reply, exit_code

    def close(self, reason: str) -> None:
        """Fail all open calls. Does nothing the second time."""
        if self._closed is not None:
            return
        self._closed = reason
        self._loop.remove_reader(self._control)
        if self._writable is not None:
            self._on_writable()
        self._control.close()
        for waiting in self._pending.values():
            if not waiting.done():
                waiting.set_exception(GuestLost(reason))
        self._pending.clear()
        for exit_code in self._exits.values():
            if not exit_code.done():
                exit_code.set_result(None)
        self._exits.clear()

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    async def _call(self, call_id: int, operation: str, descriptors: Sequence[int], arguments: dict[str, Any]) -> Reply:
        async with self._slots:
            answer: asyncio.Future[Reply] = self._loop.create_future()
            message = {"id": call_id, "operation": operation, "arguments": arguments}
            await self._send(call_id, answer, message, descriptors)
            try:
                return await answer
            except asyncio.CancelledError:
                if answer.done() and not answer.cancelled() and answer.exception() is None:
                    channel.close_all(answer.result().descriptors)
                raise

    async def _send(
        self, call_id: int, answer: asyncio.Future[Reply], message: dict[str, Any], descriptors: Sequence[int]
    ) -> None:
        async with self._sending:
            while True:
                if self._closed is not None:
                    raise GuestLost(self._closed)
                try:
                    channel.send(self._control, message, descriptors)
                except BlockingIOError:
                    await self._until_writable()
                except channel.MalformedMessage as error:
                    raise OSError(errno.E2BIG, str(error)) from error
                except (BrokenPipeError, ConnectionError):
                    self._lose("it closed its channel")
                else:
                    self._pending[call_id] = answer
                    return

    async def _until_writable(self) -> None:
        self._writable = self._loop.create_future()
        self._loop.add_writer(self._control, self._on_writable)
        try:
            await self._writable
        finally:
            self._on_writable()

    def _on_writable(self) -> None:
        if self._writable is not None:
            self._loop.remove_writer(self._control)
            if not self._writable.done():
                self._writable.set_result(None)
            self._writable = None

    def _on_readable(self) -> None:
        try:
            message, descriptors = channel.receive(self._control)
        except (BlockingIOError, InterruptedError):
            return
        except channel.ChannelClosed:
            self._lose("its first process ended")
            return
        except (channel.MalformedMessage, OSError) as error:
            self._lose(f"it sent something that is not a message: {error}")
            return
        if not self._deliver(message, descriptors):
            channel.close_all(descriptors)

    def _deliver(self, message: dict[str, Any], descriptors: list[int]) -> bool:
        """Pass a message to the call that waits for it. False: its descriptors were not taken."""
        try:
            if "exit" in message:
                exit_code = self._exits.pop(message["exit"], None)
                if exit_code is not None and not exit_code.done():
                    exit_code.set_result(int(message["code"]))
                return False
            answer = self._pending[message["id"]]
            has_caller = not answer.done()  # False: the caller was cancelled
            if "error" in message:
                number, text = message["error"]
                failure = OSError(int(number), str(text))
                if has_caller:
                    answer.set_exception(failure)
            elif has_caller:
                answer.set_result(Reply(message["value"], descriptors))
            del self._pending[message["id"]]  # last: after a malformed reply `close` still fails this call
            return has_caller and "error" not in message
        except (KeyError, TypeError, ValueError):
            self._lose("it sent a reply to no call")
            return False

    def _lose(self, reason: str) -> None:
        if self._closed is None:
            self.close(reason)
            self._on_lost(reason)
