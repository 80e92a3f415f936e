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

    `dac_override` keeps the one capability that lets it pass directories which are closed to that user.
    """

    uid: int
    gid: int
    dac_override: bool = False


@dataclass(frozen=True)
class Command:
    """What a part runs. `grace` is how many seconds it has between the stop signal and SIGKILL; `litter` are glob
    patterns of what it leaves outside of its directory, removed when it has ended."""

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    grace: float = 10.0
    account: Account | None = None
    litter: Sequence[str] = ()


Run = Callable[[Command], Awaitable[None]]
"""Runs a command to its end under a guard; raises `PartFailed` with its last words when its exit code is not 0."""


class Part(Protocol):
    """One server of the stack. What differs between the servers is here; what they share is in `stack.py`."""

    name: str
    hint: str
    """What a person can do when it does not start."""
    start_seconds: float
    """How long starting may take."""

    async def prepare(self, run: Run) -> None:
        """Make what the server needs on disk; called before each start. `run` runs a command to its end."""

    def command(self) -> Command:
        """Return what to run."""

    async def is_ready(self) -> bool:
        """Say whether the server does its work, by using it. An exception means: not yet."""

    def environment(self) -> dict[str, str]:
        """Return the variables that point clients at the server; called once it is ready."""


class GuardedProcess:
    """A command under its guard (see `guard.py`)."""

    def __init__(self, guard: asyncio.subprocess.Process, control: socket.socket, pid: int) -> None:
        self._guard = guard
        self._control = control
        self.pid = pid
        """The command's process id, not the guard's."""
        self.exit_code = asyncio.create_task(guard.wait())
        """Done when the command and everything that it left behind are gone."""
        self.has_served = False
        """Set by who started it. What has not served yet is not stopped in order but killed: it may take no notice."""

    @classmethod
    async def start(cls, command: Command, *, directory: Path, log: Path, lock: int) -> "GuardedProcess":
        """Run the command in `directory`; its standard output goes to `<log>.out`, its standard error to `log`.

        `lock` is the descriptor of the data directory's lock, which the guard holds for as long as it lives.
        """
        options = ["--stop-signal", str(int(command.stop_signal)), "--grace", str(command.grace)]
        if command.account is not None:
            options += ["--account", f"{command.account.uid}:{command.account.gid}"]
            if command.account.dac_override:
                options.append("--dac-override")
        for pattern in command.litter:
            options += ["--litter", pattern]
        output = output_of(log)
        for path in (log, output):
            path.touch(mode=0o600)
        with log.open("ab") as errors, output.open("wb") as standard:
            guard, control = await _start_guard(
                [*options, "--", *command.arguments],
                environment=command.environment,
                directory=directory,
                stdout=standard.fileno(),
                stderr=errors.fileno(),
                descriptors=[lock],
            )
        try:
            line = await asyncio.get_running_loop().sock_recv(control, 32)
        except BaseException:
            _let_go(control, kill=True)
            await asyncio.shield(guard.wait())
            raise
        return cls(guard, control, int(line or b"0"))

    def release(self) -> None:
        """Have the guard stop the command. Does not wait, so nothing can get in between."""
        _let_go(self._control, kill=not self.has_served)

    async def stop(self) -> None:
        """Stop the command in an orderly way, and wait until it and its descendants are gone."""
        self.release()
        await asyncio.shield(self.exit_code)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the command itself, past the guard."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


class Remover:
    """Removes a temporary data directory once everything that works in it is gone, also after SIGKILL of this one."""

    def __init__(self, guard: asyncio.subprocess.Process, control: socket.socket) -> None:
        self._guard = guard
        self._control = control

    @classmethod
    async def start(cls, directory: Path) -> "Remover":
        """Watch over this directory."""
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
        """Remove the directory and wait for that."""
        self._control.close()
        await self._guard.wait()


def output_of(log: Path) -> Path:
    """Return where the standard output of the part with this log goes."""
    return log.with_suffix(".out")


def _let_go(control: socket.socket, *, kill: bool) -> None:
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
            # Ctrl-C goes to the whole foreground group; the guards wait for us to stop them in order.
            start_new_session=True,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return guard, ours
