"""Pid 1 of a sandbox: acts *inside* and passes file descriptors out.

The server never resolves a path of a sandbox and never enters its network. It asks this program, which runs under
bubblewrap in the sandbox's own namespaces, to open a file, spawn a process or connect to a port, and gets the
descriptor back. So a symlink to /etc/shadow means the sandbox's /etc/shadow, and bulk data never crosses this program.

Standard library only: the system's Python runs it from a read-only copy (see `confinement.py`), as `guest.main()` with
the channel's descriptor number and the resource limits (JSON) as arguments. It ends when the channel closes, and
everything in the sandbox ends with pid 1.
"""
# ruff: noqa: PTH103, PTH104, PTH107, PTH112, PTH114, PTH116, PTH118, PTH120, PTH123, PTH208
# Paths are what a client or a hostile program wrote; here they go to system calls as they are, pathlib would edit them.

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import queue
import resource
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from local.sandbox import channel
from local.sandbox.guest_entry import as_text, entry_of
from local.sandbox.guest_usage import PAGE_BYTES, Usage, read_at_once
from local.sandbox.guest_watch import Watch

TYPE_CHECKING = False  # each import here is paid for by every sandbox
if TYPE_CHECKING:
    from typing import Any

    Outcome = tuple[Any, Sequence[int]]
    """An operation's reply: a JSON value, and descriptors to send along and then close here."""

HOME = "/home/user"

MAX_ENTRIES = 20_000
"""Refuse a listing with more entries: its reply has to fit into one message and into the server's memory."""

WORKER_THREADS = 8
MEMORY = "MEMORY"
"""Among the limits: bytes that all processes together may use. The others are the names of `setrlimit`."""
MEMORY_MILLISECONDS = 250
"""How often the processes' memory is added up while a client's process runs and a quarter of it is in use."""
AMPLE_MEMORY_MILLISECONDS = 500
"""As before, while less of it is in use."""
IDLE_MILLISECONDS = 5000
"""As before, while only background processes run, or none. Also how often usage is measured."""
CONNECT_SECONDS = 2.0
PSEUDO_FILE_BYTES = 1 << 20

_PR_SET_DUMPABLE = 4


def main() -> None:
    """Serve the channel until it closes. Never returns."""
    # No process inside may trace this one, or take its descriptors.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    os.umask(0o022)
    limits = json.loads(sys.argv[2])
    memory = Memory(limits.pop(MEMORY, 0))
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
    Guest(socket.socket(fileno=int(sys.argv[1])), memory).serve()


class Memory:
    """Ends the largest process once all together use more than the limit, as the kernel does in a smaller machine.

    What it did is in two files, written like those of a cgroup.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.kills = 0
        self.is_scarce = False
        """Whether more than a quarter of it was in use at the last look."""
        self.looked_at = 0.0
        if limit:
            self.write("memory.max", str(limit))
            self.write("memory.events", "oom_kill 0")

    def write(self, name: str, line: str) -> None:
        with contextlib.suppress(OSError), open(f"/run/{name}", "w", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def milliseconds_left(self, pause: int) -> int:
        """The time until a look that is due this long after the last one; 0 if it is due now."""
        return max(0, pause - int((time.monotonic() - self.looked_at) * 1000))

    def look(self) -> None:
        """Enforce the limit, if there is one. The memory of shared pages counts for each process that has them."""
        self.looked_at = time.monotonic()
        if not self.limit:
            return
        used: dict[int, int] = {}
        for name in os.listdir("/proc"):
            if name.isdigit() and name != "1":
                with contextlib.suppress(OSError, ValueError, IndexError):
                    used[int(name)] = int(read_at_once(f"/proc/{name}/statm").split()[1]) * PAGE_BYTES
        in_use = sum(used.values())
        self.is_scarce = in_use > self.limit // 4
        if in_use > self.limit:
            self.kills += 1
            self.write("memory.events", f"oom_kill {self.kills}")  # before: the command's end is reported at once
            with contextlib.suppress(ProcessLookupError):
                os.kill(max(used, key=lambda pid: used[pid]), signal.SIGKILL)


class Guest:
    """The loop of pid 1. Only the main thread spawns, signals and reaps processes, so that a pid can't be reaped and
    reused between the request and the signal. Everything else runs on a few threads that are started in advance: a fork
    bomb may leave no room for new ones."""

    def __init__(self, control: socket.socket, memory: Memory) -> None:
        self.control = control
        self.memory = memory
        self.usage = Usage(HOME)
        self.processes: dict[int, tuple[int, subprocess.Popen[bytes]]] = {}
        self.jobs: queue.SimpleQueue[tuple[dict[str, Any], list[int]]] = queue.SimpleQueue()
        self.on_main: dict[str, Callable[..., Outcome]] = {
            "spawn": self.spawn,
            "signal": self.signal,
            "signal_all": self.signal_all,
            "usage": self.tell_usage,
        }

    def serve(self) -> None:
        woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in (signal.SIGCHLD, signal.SIGINT):  # handled, not ignored: children would inherit that
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for _ in range(WORKER_THREADS):
            threading.Thread(target=self.work, daemon=True).start()
        polled = select.poll()  # `select` takes no descriptor above 1023, and a server has many sandboxes
        for descriptor in (self.control.fileno(), woken):
            polled.register(descriptor, select.POLLIN)
        while True:
            pause = self.pause()
            ready = [descriptor for descriptor, _ in polled.poll(self.memory.milliseconds_left(pause))]
            if self.memory.milliseconds_left(pause) == 0:
                self.memory.look()
            if self.usage.due():
                self.usage.sample()
            if woken in ready:
                os.read(woken, 4096)
                self.reap()
            if self.control.fileno() in ready:
                self.accept()

    def pause(self) -> int:
        """Milliseconds between two looks at the processes' memory."""
        if not self.processes or not self.memory.limit:
            return IDLE_MILLISECONDS
        return MEMORY_MILLISECONDS if self.memory.is_scarce else AMPLE_MEMORY_MILLISECONDS

    def accept(self) -> None:
        try:
            message, descriptors = channel.receive(self.control)
        except (channel.ChannelClosed, channel.MalformedMessage, OSError):
            os._exit(0)  # the server is gone; the end of pid 1 ends the sandbox
        if message["operation"] in self.on_main:
            self.answer(self.on_main[message["operation"]], message, descriptors)
        else:
            self.jobs.put((message, descriptors))

    def work(self) -> None:
        while True:
            message, descriptors = self.jobs.get()
            self.answer(OPERATIONS[message["operation"]], message, descriptors)

    def answer(self, operation: Callable[..., Outcome], message: dict[str, Any], descriptors: list[int]) -> None:
        passed: Sequence[int] = ()
        try:
            arguments = dict(message["arguments"])
            if message["operation"] == "spawn":
                arguments |= {"call": message["id"], "descriptors": descriptors}
            value, passed = operation(**arguments)
            reply = {"id": message["id"], "value": value}
        except Exception as error:
            reply = {"id": message["id"], "error": description(error)}
        try:
            channel.send(self.control, reply, passed)
        except channel.MalformedMessage as error:
            channel.send(self.control, {"id": message["id"], "error": [errno.EMSGSIZE, str(error)]})
        except OSError:
            os._exit(0)
        finally:
            channel.close_all([*descriptors, *passed])

    def reap(self) -> None:
        """Collect every dead child, orphans included, as a pid 1 has to."""
        with contextlib.suppress(ChildProcessError):
            while (dead := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = dead
                if pid not in self.processes:
                    continue
                call, process = self.processes.pop(pid)
                process.returncode = os.waitstatus_to_exitcode(status)  # so that subprocess never waits for it
                channel.send(self.control, {"exit": call, "code": process.returncode})

    def spawn(
        self,
        call: int,
        descriptors: list[int],
        argv: list[str],
        env: dict[str, str],
        cwd: str,
        terminal: tuple[int, int] | None = None,
    ) -> Outcome:
        """Start a process. `reap` reports its exit.

        It runs on the descriptors for stdout, stderr and, if there is a third one, stdin; or in a new terminal of
        this many columns and rows, whose other end is returned.
        """
        if terminal is not None:
            return self.spawn_in_terminal(call, argv, env, cwd, terminal)
        process = subprocess.Popen(
            argv,
            stdout=descriptors[0],
            stderr=descriptors[1],
            stdin=descriptors[2] if len(descriptors) > 2 else subprocess.DEVNULL,
            env=env,
            cwd=absolute(cwd),
            start_new_session=True,
        )
        self.processes[process.pid] = (call, process)
        return process.pid, ()

    def spawn_in_terminal(
        self, call: int, argv: list[str], env: dict[str, str], cwd: str, size: tuple[int, int]
    ) -> Outcome:
        ours, theirs = os.openpty()
        try:
            columns, rows = size
            fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            # setsid makes the terminal the session's own; a `preexec_fn` may hang where there are threads.
            process = subprocess.Popen(
                ["setsid", "--ctty", *argv], stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=absolute(cwd)
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self.processes[process.pid] = (call, process)
        return process.pid, [ours]

    def signal(self, pid: int, number: int) -> Outcome:
        if pid not in self.processes:
            raise ProcessLookupError(errno.ESRCH, f"process with pid {pid} not found")
        os.kill(pid, number)  # not reaped yet, so the pid is still its own
        return None, ()

    def signal_all(self, number: int) -> Outcome:
        """Signal every process but pid 1. SIGSTOP pauses and keeps the memory; SIGCONT resumes."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, number)
        self.usage.paused = number == signal.SIGSTOP
        if number == signal.SIGCONT:
            self.usage.start()
        return None, ()

    def tell_usage(self) -> Outcome:
        """The samples so far, and at least one."""
        if not self.usage.samples and not self.usage.paused:
            self.usage.sample()
        return list(self.usage.samples), ()


def absolute(path: str) -> str:
    """Resolve a path of the API: `~` and relative paths start at the home directory, as in E2B."""
    if path == "~" or path.startswith("~/"):
        path = HOME + path[1:]
    return os.path.normpath(os.path.join(HOME, path))


def description(error: Exception) -> list[Any]:
    """The errno, and a message that is valid UTF-8."""
    fallback = errno.EINVAL if isinstance(error, (TypeError, ValueError)) else errno.EIO
    number = getattr(error, "errno", None) or fallback
    message = getattr(error, "strerror", None) or str(error) or type(error).__name__
    name = getattr(error, "filename", None)
    return [number, as_text(f"{message}: {name}" if name else message)]


def open_for_reading(path: str) -> Outcome:
    """Open a regular file; return its path and descriptor. Files without a size (/proc) are read here and passed as a
    sealed copy. The server must never read them: what some of them contain depends on the reader."""
    path = absolute(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # never wait for a fifo's other end
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, f"path is a directory: {path}")
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, f"path is not a regular file: {path}")
        if status.st_size == 0:
            with os.fdopen(os.dup(descriptor), "rb") as file:
                copy = channel.sealed_memfd(file.read(PSEUDO_FILE_BYTES))
            os.close(descriptor)
            descriptor = copy
    except BaseException:
        os.close(descriptor)
        raise
    return as_text(path), [descriptor]


def open_for_writing(path: str) -> Outcome:
    """Create or empty a regular file, and make its directories; return its path and descriptor."""
    path = absolute(path)
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, f"path is a directory: {path}")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, f"path is not a regular file: {path}")
        os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return as_text(path), [descriptor]


def connect(port: int) -> Outcome:
    """Connect to a TCP port of this sandbox; return the socket."""
    for host in ("127.0.0.1", "::1"):
        with contextlib.suppress(OSError):
            connection = socket.create_connection((host, port), timeout=CONNECT_SECONDS)
            connection.settimeout(None)
            return None, [connection.detach()]
    raise ConnectionRefusedError(errno.ECONNREFUSED, f"The sandbox is running but port is not open: {port}")


def listen(port: int) -> Outcome:
    """Listen on a TCP port of this sandbox's loopback; return the socket, on which the server accepts."""
    return None, [socket.create_server(("127.0.0.1", port), backlog=64).detach()]


def stat_path(path: str) -> Outcome:
    return entry_of(absolute(path)), ()


def list_directory(path: str, depth: int) -> Outcome:
    top = absolute(path)
    real = os.path.realpath(top)
    if not stat.S_ISDIR(os.stat(real).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, f"path is not a directory: {top}")
    entries: list[dict[str, Any]] = []
    for entry_path in walk(real, depth):
        if len(entries) >= MAX_ENTRIES:
            raise OSError(errno.EOVERFLOW, f"more than {MAX_ENTRIES} entries below {top}; list a smaller part of it")
        with contextlib.suppress(FileNotFoundError):
            entries.append(entry_of(entry_path, os.path.join(top, os.path.relpath(entry_path, real))))
    return entries, ()


def walk(top: str, depth: int) -> Iterator[str]:
    """Paths below a directory, `depth` levels deep, sorted by name in each directory. Links are not followed."""
    pending = [(top, 1)]
    while pending:
        directory, level = pending.pop(0)
        try:
            with os.scandir(directory) as scan:
                children = []
                for entry in scan:
                    children.append((entry.path, entry.is_dir(follow_symlinks=False)))
                    if len(children) > MAX_ENTRIES:
                        break  # the caller refuses the listing, so the rest need not be read
        except OSError:
            if directory == top:
                raise
            continue
        for path, is_directory in sorted(children):
            yield path
            if is_directory and level < depth:
                pending.append((path, level + 1))


def watch(path: str, recursive: bool, include_entry: bool) -> Outcome:
    """Watch a directory; return the end of a pipe from which to read lines of JSON."""
    return None, [Watch(absolute(path), recursive=recursive, include_entry=include_entry).start()]


def make_directory(path: str) -> Outcome:
    path = absolute(path)
    os.makedirs(path)
    return entry_of(path), ()


def move(source: str, destination: str) -> Outcome:
    source, destination = absolute(source), absolute(destination)
    os.lstat(source)  # before directories are made for it
    os.makedirs(os.path.dirname(destination), exist_ok=True)
    os.rename(source, destination)
    return entry_of(destination), ()


def remove(path: str) -> Outcome:
    """Remove a file, a link itself, or a whole directory. A missing path is not an error, as in E2B."""
    path = absolute(path)
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.remove(path)
    return None, ()


OPERATIONS: dict[str, Callable[..., Outcome]] = {
    "connect": connect,
    "list": list_directory,
    "listen": listen,
    "make_directory": make_directory,
    "move": move,
    "open_for_reading": open_for_reading,
    "open_for_writing": open_for_writing,
    "remove": remove,
    "stat": stat_path,
    "watch": watch,
}
