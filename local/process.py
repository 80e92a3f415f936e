"""A part of the stack as a guarded process: started, signalled, stopped."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

_GUARD = [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py"))]


@dataclass(frozen=True)
class Account:
    """The user that a command runs as.

    `dac_override` keeps CAP_DAC_OVERRIDE, which opens directories that are closed to that user.
    """

    uid: int
    gid: int
    dac_override: bool = False


@dataclass(frozen=True)
class Command:
    """What a part runs.

    `grace` is the time between the stop signal and SIGKILL, in seconds. `leftovers` are glob patterns of files that the
    command leaves outside of its directory; they are removed when it has ended.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    grace: float = 10.0
    account: Account | None = None
    leftovers: Sequence[str] = ()


Run = Callable[[Command], Awaitable[None]]
"""Runs a command to its end under a guard. Raises `PartFailed` with the end of its log if its exit code is not 0."""


class Part(Protocol):
    """One server of the stack: what differs between the servers. What they share is in `stack.py`."""

    name: str
    hint: str
    """What a person can do if it does not start."""
    start_seconds: float
    """Fail if the server is not ready after this many seconds."""

    async def prepare(self, run: Run) -> None:
        """Create what the server needs on disk. Called before each start. `run` runs a command to its end."""

    def command(self) -> Command:
        """Return what to run."""

    async def is_ready(self) -> bool:
        """Use the server, and return whether it works. An exception means that it is not ready yet."""

    def environment(self) -> dict[str, str]:
        """Return the variables that point clients at the server. Called once it is ready."""


class GuardedProcess:
    """A command under its guard (see `guard.py`)."""

    def __init__(self, guard: asyncio.subprocess.Process, control: socket.socket, pid: int) -> None:
        self._guard = guard
        self._control = control
        self.pid = pid
        """The command's process id, not the guard's."""
        self.exit_code = asyncio.create_task(guard.wait())
        """Done when the command and its descendants are gone."""
        self.has_served = False
        """Set by the code that started it. A server that has not served yet is killed: it may ignore a stop signal."""

    @classmethod
    async def start(cls, command: Command, *, directory: Path, log: Path, lock: int) -> "GuardedProcess":
        """Run the command in `directory`. Its standard error goes to `log`, its standard output to `output_of(log)`.

        `lock` is the descriptor of the data directory's lock. The guard holds the lock for as long as it lives.
        """
        options = ["--stop-signal", str(int(command.stop_signal)), "--grace", str(command.grace)]
        if command.account is not None:
            options += ["--account", f"{command.account.uid}:{command.account.gid}"]
            if command.account.dac_override:
                options.append("--dac-override")
        for pattern in command.leftovers:
            options += ["--leftovers", pattern]
        output = output_of(log)
        for path in (log, output):
            path.touch(mode=0o600)
        with log.open("ab") as stderr, output.open("wb") as stdout:
            guard, control = await _start_guard(
                [*options, "--", *command.arguments],
                environment=command.environment,
                directory=directory,
                stdout=stdout.fileno(),
                stderr=stderr.fileno(),
                descriptors=[lock],
            )
        try:
            line = await asyncio.get_running_loop().sock_recv(control, 32)
        except BaseException:
            _release(control, kill=True)
            await asyncio.shield(guard.wait())
            raise
        return cls(guard, control, int(line or b"0"))

    def release(self) -> None:
        """Tell the guard to stop the command. Does not wait, so a cancellation cannot interrupt it."""
        _release(self._control, kill=not self.has_served)

    async def stop(self) -> None:
        """Stop the command, and wait until it and its descendants are gone."""
        self.release()
        await asyncio.shield(self.exit_code)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the command itself, not to its guard."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


class Remover:
    """Removes a temporary data directory when all its servers are gone, even if this process is killed."""

    def __init__(self, guard: asyncio.subprocess.Process, control: socket.socket) -> None:
        self._guard = guard
        self._control = control

    @classmethod
    async def start(cls, directory: Path) -> "Remover":
        """Start the process that will remove this directory."""
        guard, control = await _start_guard(
            ["--remove", str(directory)],
            environment={},
            directory=Path("/"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            descriptors=[],
        )
        return cls(guard, control)

    async def stop(self) -> None:
        """Remove the directory, and wait until it is gone."""
        self._control.close()
        await self._guard.wait()


def output_of(log: Path) -> Path:
    """Return the path of the standard output that belongs to this log."""
    return log.with_suffix(".out")


def _release(control: socket.socket, *, kill: bool) -> None:
    if kill:
        with contextlib.suppress(OSError):
            control.send(b"kill")
    control.close()


async def _start_guard(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    stdout: int,
    stderr: int,
    descriptors: Sequence[int],
) -> tuple[asyncio.subprocess.Process, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    try:
        guard = await asyncio.create_subprocess_exec(
            *_GUARD,
            *arguments,
            env=environment,
            cwd=directory,
            stdin=theirs.fileno(),
            stdout=stdout,
            stderr=stderr,
            pass_fds=descriptors,
            # Ctrl-C goes to the whole foreground process group. The guards must not stop before the stack tells them.
            start_new_session=True,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return guard, ours
