"""Watching directories inside a sandbox: pid 1 reads inotify and writes what happens into a pipe, one JSON line each.

As envd does it (it uses fsnotify): an event has the operation and the path relative to the watched directory. Links are
not followed below it, and its own name in an event is ".". The pipe slows down the watch when the server does not read;
the kernel then drops events, and the watch ends and says so.
"""
# ruff: noqa: PTH116, PTH118
# Paths are what a client or a hostile program wrote; here they go to system calls as they are, pathlib would edit them.

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import stat
import struct
import threading
from collections.abc import Iterator

from local.sandbox.guest_entry import as_text, entry_of

TYPE_CHECKING = False  # see guest.py
if TYPE_CHECKING:
    from typing import Any

MAX_DIRECTORIES = 10_000
"""Refuse a recursive watch of more directories: each one costs the kernel about 1 kB."""

_IN_MODIFY, _IN_ATTRIB = 0x2, 0x4
_IN_MOVED_FROM, _IN_MOVED_TO = 0x40, 0x80
_IN_CREATE, _IN_DELETE = 0x100, 0x200
_IN_DELETE_SELF, _IN_MOVE_SELF = 0x400, 0x800
_IN_Q_OVERFLOW, _IN_IGNORED = 0x4000, 0x8000
_IN_ONLYDIR, _IN_DONT_FOLLOW, _IN_ISDIR = 0x1000000, 0x2000000, 0x40000000

_WATCHED = (
    _IN_MODIFY | _IN_ATTRIB | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE | _IN_DELETE_SELF | _IN_MOVE_SELF
)
_OPERATIONS = (
    ("create", _IN_CREATE | _IN_MOVED_TO),
    ("write", _IN_MODIFY),
    ("remove", _IN_DELETE | _IN_DELETE_SELF),
    ("rename", _IN_MOVED_FROM | _IN_MOVE_SELF),
    ("chmod", _IN_ATTRIB),
)
_UNREACHABLE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG)
_HEAD = struct.Struct("iIII")
_READ_BYTES = 1 << 16
_libc = ctypes.CDLL(None, use_errno=True)


class WatchLost(Exception):
    """The watch can't go on. The message says why, and what to do."""


class Watch:
    """One watch of one directory. `start` returns the end of the pipe to read from.

    Raises OSError if the directory can't be watched; EOVERFLOW if there are too many below it.
    """

    def __init__(self, path: str, *, recursive: bool, include_entry: bool) -> None:
        self.path = path
        self.top = os.path.realpath(path)
        self.recursive = recursive
        self.include_entry = include_entry
        self.directories: dict[int, str] = {}
        """Paths relative to the top by watch descriptor. The top's is empty."""
        self.reported: dict[int, set[str]] = {}
        """Names in new directories that were reported before their events were read."""
        if not stat.S_ISDIR(os.stat(self.top).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, f"path is not a directory: {path}")
        self.inotify = _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "max_user_instances")
        try:
            top = self.add("")
            if recursive and top is not None:
                for _ in self.add_below(top, ""):
                    pass
        except BaseException:
            os.close(self.inotify)
            raise

    def start(self) -> int:
        """Begin to report on a thread, until the other end of the pipe is closed."""
        reader, self.output = os.pipe()
        try:
            threading.Thread(target=self.report, daemon=True).start()
        except BaseException:
            for descriptor in (reader, self.output, self.inotify):
                os.close(descriptor)
            raise
        return reader

    def report(self) -> None:
        polled = select.poll()
        polled.register(self.inotify, select.POLLIN)
        polled.register(self.output, 0)  # only its error: the reader has left
        try:
            while True:
                if not (ready := polled.poll(0)):
                    self.reported.clear()  # every event of the time before those reports was read
                    ready = polled.poll()
                if self.output in dict(ready):
                    return
                for descriptor, mask, name in self.read():
                    self.handle(descriptor, mask, name)
        except WatchLost as lost:
            with contextlib.suppress(OSError):
                self.write({"lost": str(lost)})
        except OSError:
            pass  # the reader has left
        finally:
            os.close(self.inotify)
            os.close(self.output)

    def read(self) -> Iterator[tuple[int, int, str]]:
        """The events that are waiting: watch descriptor, mask and name."""
        data, start = os.read(self.inotify, _READ_BYTES), 0
        while start < len(data):
            descriptor, mask, _, size = _HEAD.unpack_from(data, start)
            end = start + _HEAD.size + size
            yield descriptor, mask, os.fsdecode(data[start + _HEAD.size : end].rstrip(b"\0"))
            start = end

    def handle(self, descriptor: int, mask: int, name: str) -> None:
        if mask & _IN_Q_OVERFLOW:
            raise WatchLost("more happened than was read, and events were lost. Watch again, and read faster")
        if mask & _IN_IGNORED:
            self.directories.pop(descriptor, None)
            self.reported.pop(descriptor, None)
            return
        directory = self.directories.get(descriptor)
        if directory is None or (directory and not name):
            return  # no longer watched, or about a directory itself: the one above it reports that
        path = os.path.join(directory, name)
        if name in self.reported.get(descriptor, ()):
            if mask & _IN_CREATE:
                return
            if mask & (_IN_DELETE | _IN_MOVED_FROM):
                self.reported[descriptor].discard(name)
        for operation, bits in _OPERATIONS:
            if mask & bits:
                self.tell(operation, path)
        if self.recursive and mask & _IN_ISDIR and name:
            self.follow(mask, path)

    def follow(self, mask: int, path: str) -> None:
        """Watch a directory that appeared, and stop with one that was moved away: if it is still below the top, it
        appears under its new name."""
        if mask & _IN_MOVED_FROM:
            for descriptor, watched in list(self.directories.items()):
                if watched == path or watched.startswith(f"{path}/"):
                    del self.directories[descriptor]
                    self.reported.pop(descriptor, None)
                    _libc.inotify_rm_watch(self.inotify, descriptor)
        elif mask & (_IN_CREATE | _IN_MOVED_TO):
            try:
                if (added := self.add(path)) is None:
                    return
                new = bool(mask & _IN_CREATE)  # what a moved directory brings along is not new
                for found in self.add_below(added, path, new=new):
                    if new:
                        self.tell("create", found)
            except _Full as error:
                raise WatchLost(error.strerror) from error

    def add_below(self, descriptor: int, directory: str, *, new: bool = False) -> Iterator[str]:
        """Watch every directory below one that is watched; yield the paths of all entries on the way."""
        pending = [(descriptor, directory)]
        while pending:
            descriptor, directory = pending.pop()
            try:
                with os.scandir(os.path.join(self.top, directory)) as scan:
                    entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in scan]
            except OSError:
                continue  # removed or closed to us meanwhile
            if new:
                self.reported[descriptor] = {name for name, _ in entries}
            for name, is_directory in entries:
                path = os.path.join(directory, name)
                yield path
                if is_directory and (below := self.add(path)) is not None:
                    pending.append((below, path))

    def add(self, path: str) -> int | None:
        """Watch one directory. None: it is gone, or closed to us. The top has to be there."""
        if len(self.directories) >= MAX_DIRECTORIES:
            raise _Full(
                errno.EOVERFLOW,
                f"more than {MAX_DIRECTORIES} directories below {self.path}; watch a part of it",
            )
        flags = _WATCHED | _IN_ONLYDIR | (_IN_DONT_FOLLOW if path else 0)
        raw = os.fsencode(os.path.join(self.top, path) if path else self.top)
        descriptor: int = _libc.inotify_add_watch(self.inotify, raw, ctypes.c_uint32(flags))
        if descriptor < 0 and path and ctypes.get_errno() in _UNREACHABLE:
            return None
        self.directories[_checked(descriptor, "max_user_watches")] = path
        return descriptor

    def tell(self, operation: str, path: str) -> None:
        entry = None
        if self.include_entry and operation not in ("remove", "rename"):
            with contextlib.suppress(OSError):
                entry = entry_of(os.path.join(self.path, path) if path else self.path)
        self.write({"type": operation, "name": as_text(path) or ".", "entry": entry})

    def write(self, line: dict[str, Any]) -> None:
        data = memoryview(json.dumps(line).encode() + b"\n")
        while data:
            data = data[os.write(self.output, data) :]


class _Full(OSError):
    """There is no room for another watch. The message says what to do."""


def _checked(result: int, sysctl: str) -> int:
    """The result of a call of libc. Raises OSError; where the kernel has a limit, with its name."""
    if result < 0:
        number = ctypes.get_errno()
        message = os.strerror(number)
        if number in (errno.EMFILE, errno.ENOSPC):
            message = f"this machine has no room for another watch; raise fs.inotify.{sysctl} with sysctl"
            raise _Full(number, message)
        raise OSError(number, message)
    return result
