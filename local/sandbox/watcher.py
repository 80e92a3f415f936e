"""One watched directory of a sandbox, at the server's end. `guest_watch.py` is the other end.

Events wait here until they are taken. With `MAX_EVENTS` of them waiting nothing more is read, so that neither side's
memory depends on what a product does or on how often a client asks.
"""

import asyncio
import json
import os
from collections import deque
from dataclasses import dataclass
from typing import Any

MAX_EVENTS = 10_000
MAX_LINE_BYTES = 1 << 18


class WatchEnded(Exception):
    """No more events will come. The message says why."""


@dataclass(frozen=True)
class Event:
    """Something that happened. `entry` describes the file, if that was asked for and the file is still there."""

    operation: str
    name: str
    entry: Any


class Watcher:
    """Reads the pipe of a watch. Use it from one event loop only."""

    def __init__(self, descriptor: int) -> None:
        self._events: deque[Event] = deque()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._ended: str | None = None
        self._pipe = os.fdopen(descriptor, "rb", 0)
        self._reading = asyncio.create_task(self._read())
        self._reading.add_done_callback(lambda _: self._pipe.close())

    async def next(self) -> Event:
        """Wait for the next event. Raises `WatchEnded`."""
        while not self._events:
            self._raise_if_ended()
            self._changed.clear()
            await self._changed.wait()
        self._room.set()
        return self._events.popleft()

    def take(self) -> list[Event]:
        """All events since the last call. Raises `WatchEnded` if there are none and there will be none."""
        if not self._events:
            self._raise_if_ended()
        events = list(self._events)
        self._events.clear()
        self._room.set()
        return events

    def end(self, reason: str) -> None:
        """Stop watching. Does nothing the second time."""
        if self._ended is None:
            self._ended = reason
            self._changed.set()
            self._reading.cancel()

    def _raise_if_ended(self) -> None:
        if self._ended is not None:
            raise WatchEnded(self._ended)

    async def _read(self) -> None:
        reason = "the sandbox ended the watch"
        transport: asyncio.BaseTransport | None = None
        try:
            lines = asyncio.StreamReader(MAX_LINE_BYTES)
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(lines), self._pipe
            )
            while line := await lines.readline():
                message = json.loads(line)
                if "lost" in message:
                    reason = str(message["lost"])
                    break
                self._events.append(Event(str(message["type"]), str(message["name"]), message["entry"]))
                self._changed.set()
                while len(self._events) >= MAX_EVENTS:
                    self._room.clear()
                    await self._room.wait()
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            reason = "the sandbox sent something that is not an event"
        finally:
            if transport is not None:
                transport.close()
            self.end(reason)
