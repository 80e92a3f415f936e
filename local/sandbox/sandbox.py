"""One sandbox: two directories on disk, and while it runs (or is paused with its memory) one tree of processes.

`pause` stops the processes and keeps their memory; `resume` continues them. After a pause without memory, or the death
of pid 1 or of the server, the sandbox is paused with only its files, and `resume` boots it again. `kill` ends it in
every state and removes its files.
"""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

from local.sandbox import channel
from local.sandbox.command import REMEMBERED_SECONDS, Command, Listener
from local.sandbox.confinement import CA_BUNDLE_PATH, NODE_PATH, OWN_PREFIX, Confinement, Limits
from local.sandbox.egress import EgressProxy
from local.sandbox.guest import HOME
from local.sandbox.guest_link import GuestLink, GuestLost, Reply
from local.sandbox.oracle import Oracle
from local.sandbox.record import RECORD_FILE, SandboxRecord, State
from local.sandbox.watcher import Watcher

log = logging.getLogger(__name__)

BOOT_SECONDS = 10.0
PAUSE_SECONDS = 5.0
STOP_SECONDS = 2.0
MAX_WATCHERS = 32
"""Watched directories of one sandbox at a time. The kernel has 128 inotify instances for one user by default."""

_LOGGED_INPUT = 150
"""Bytes of a process's input that the log for tests gets: they name the call, and hold no content."""

LOG_FILE = "log"
LOG_TAIL = 500
CA_VARIABLES = (
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
)
"""By these curl, git, Node.js, pip, Python and what uses OpenSSL find the operator's certificates."""

NOT_RUNNING = "The sandbox was not found"
"""The SDK recognises a sandbox that is not running by exactly this text."""


class BootFailed(Exception):
    """The sandbox did not start. The message has the output of bubblewrap or pid 1."""


class TooManyWatchers(Exception):
    """As many directories of this sandbox are watched as may be. The message says what to do."""


class Sandbox:
    """A lock serialises lifecycle changes. Use it from one event loop only.

    `on_gone` is called when the sandbox has been killed, by a request or at the end of its time.
    """

    def __init__(
        self,
        record: SandboxRecord,
        directory: Path,
        confinement: Confinement,
        egress: EgressProxy | None,
        on_gone: Callable[["Sandbox"], None],
        oracle: Oracle | None = None,
    ) -> None:
        self.record = record
        self.directory = directory
        self.commands: dict[int, Command] = {}
        self.watchers: dict[str, Watcher] = {}
        """Those that a client asks for events. They outlast a pause with memory, as in E2B."""
        self.watch_streams: set[Watcher] = set()
        self._running = False
        self._gone = False
        self._confinement = confinement
        self._egress = egress if record.allow_internet is not False else None
        self._on_gone = on_gone
        self._oracle = oracle
        self._link: GuestLink | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watches_starting = 0
        self._egress_servers: list[asyncio.Server] = []
        self._end_timer: asyncio.TimerHandle | None = None
        self._changing = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def limits(self) -> Limits:
        return self._confinement.limits

    @property
    def running(self) -> bool:
        """Whether it takes requests. If not, it is paused or gone."""
        return self._running

    @property
    def keeps_memory(self) -> bool:
        """Whether its processes exist, running or stopped."""
        return self._link is not None

    # Operations inside the sandbox

    async def call(self, operation: str, **arguments: object) -> Reply:
        """Run an operation of `guest.py`. Raises OSError; `GuestLost` if the sandbox is not up."""
        if self._link is None:
            raise GuestLost(NOT_RUNNING)
        return await self._link.call(operation, **arguments)

    async def start_command(
        self,
        argv: list[str],
        *,
        envs: dict[str, str],
        cwd: str | None,
        tag: str | None,
        with_stdin: bool,
        listener: Listener,
        terminal: tuple[int, int] | None = None,
    ) -> Command:
        """Start a process, in a terminal of this many columns and rows if they are given. Raises OSError with the
        reason."""
        if self._link is None:
            raise GuestLost(NOT_RUNNING)
        env = self._environment()
        if terminal is None:
            command = await Command.start(
                self._link, argv, env=env, envs=envs, cwd=cwd, tag=tag, with_stdin=with_stdin, listener=listener
            )
        else:
            command = await Command.start_in_terminal(
                self._link, argv, env=env, envs=envs, cwd=cwd, tag=tag, size=terminal, listener=listener
            )
        self.commands[command.pid] = command
        if self._oracle is not None:
            self._oracle.started(self.id, command.pid, argv)
        command.finished.add_done_callback(lambda _: self._forget_later(command))
        return command

    def note_input(self, command: Command, data: bytes) -> None:
        """Log what a process is asked by its input, for the tests that compare: it may start others."""
        if self._oracle is not None:
            self._oracle.started(self.id, command.pid, [data[:_LOGGED_INPUT].decode("utf-8", "replace")])

    async def watch(self, path: str, *, recursive: bool, include_entry: bool) -> Watcher:
        """Watch a directory. Raises OSError with the reason, `TooManyWatchers`."""
        if len(self.watchers) + len(self.watch_streams) + self._watches_starting >= MAX_WATCHERS:
            raise TooManyWatchers(
                f"{MAX_WATCHERS} directories of this sandbox are watched, as many as the local sandbox server allows;"
                " stop watching one"
            )
        self._watches_starting += 1
        try:
            reply = await self.call("watch", path=path, recursive=recursive, include_entry=include_entry)
        finally:
            self._watches_starting -= 1
        if len(reply.descriptors) != 1:
            channel.close_all(reply.descriptors)
            raise GuestLost("the sandbox's reply has no events to read")
        return Watcher(reply.descriptors[0])

    def _forget_later(self, command: Command) -> None:
        def forget() -> None:
            if self.commands.get(command.pid) is command:  # another process may have its pid by now
                del self.commands[command.pid]

        asyncio.get_running_loop().call_later(REMEMBERED_SECONDS, forget)

    def _environment(self) -> dict[str, str]:
        environment = {
            "PATH": self._confinement.search_path,
            "npm_config_prefix": OWN_PREFIX,
            "HOME": HOME,
            "USER": "user",
            "LOGNAME": "user",
            "SHELL": "/bin/bash",
            "LANG": "C.UTF-8",
            "E2B_SANDBOX": "true",
            "E2B_SANDBOX_ID": self.id,
            "E2B_TEMPLATE_ID": self.record.template,
        }
        if self._confinement.node is not None:
            # Modules in C++ are compiled with its own header files; node-gyp would download some. Not by a variable
            # `npm_config_…`: npm warns of those that it does not know.
            environment["npm_package_config_node_gyp_nodedir"] = NODE_PATH
        if self._egress:
            environment |= self._egress.environment()
            if self._confinement.ca_bundle is not None:
                environment |= dict.fromkeys(CA_VARIABLES, CA_BUNDLE_PATH)
        return environment | self.record.envs

    # Lifecycle

    async def start(self) -> None:
        """Boot for the first time. Raises `BootFailed`."""
        async with self._changing:
            await self._boot()
        self._set_end_timer()

    def adopt(self) -> None:
        """Take over from a dead server, with which all processes ended. If the end is past, the sandbox is recorded as
        paused, or killed on the next turn of the event loop."""
        if self.record.state == "running":
            self._set_end_timer()

    async def pause(self, *, memory: bool = True) -> bool:
        """Stop the processes (`memory`) or end them. Streams end either way, as in E2B. False: it is not running."""
        async with self._changing:
            if not self._running:
                return False
            self._running = False
            self._cancel_end_timer()
            for command in self.commands.values():
                command.lose_listeners("the sandbox was paused")
            for watcher in self.watch_streams:
                watcher.end("the sandbox was paused")
            if memory and self._link is not None:
                try:
                    async with asyncio.timeout(PAUSE_SECONDS):
                        await self._link.call("signal_all", number=int(signal.SIGSTOP))
                except (TimeoutError, OSError) as error:
                    log.warning("sandbox %s could not be paused with its memory: %s", self.id, error)
                    await self._stop("the sandbox was paused")
            else:
                await self._stop("the sandbox was paused")
            self._remember("paused")
            return True

    async def resume(self, *, memory: bool = True) -> bool:
        """Run again. Boots without memory to return to, or if `memory` is False. False: it is running.

        Raises `BootFailed`, and `GuestLost` if it has been killed.
        """
        async with self._changing:
            if self._gone:
                raise GuestLost(NOT_RUNNING)
            if self._running:
                return False
            if not memory:
                await self._stop("the sandbox was restarted")
            if self._link is not None:
                try:
                    async with asyncio.timeout(PAUSE_SECONDS):
                        await self._link.call("signal_all", number=int(signal.SIGCONT))
                    self._running = True
                except (TimeoutError, OSError) as error:
                    log.warning("sandbox %s lost its memory while paused: %s", self.id, error)
                    await self._stop("the sandbox was restarted")
            if not self._running:
                await self._boot()
            self._remember("running")
            return True

    async def kill(self) -> None:
        """End it and remove its files."""
        async with self._changing:
            if self._gone:
                return
            self._gone = True
            self._cancel_end_timer()
            # First make it impossible to find. If the server is killed here, the next one removes the rest.
            self._on_gone(self)
            (self.directory / RECORD_FILE).unlink(missing_ok=True)
            await self._stop("the sandbox was killed")
            if self._oracle is not None:
                self._oracle.keep(self.id, self.directory)
            await remove_tree(self.directory)

    async def stop(self) -> None:
        """End its processes because the server ends. The record stays as it is for the next server."""
        async with self._changing:
            self._gone = True
            self._cancel_end_timer()
            await self._stop("the sandbox server is stopping")

    def set_timeout(self, seconds: int, *, only_extend: bool = False) -> None:
        """End it this many seconds from now."""
        end_at = time.time() + seconds
        if not only_extend or end_at > self.record.end_at:
            self.record.end_at = end_at
            self.record.timeout = seconds
            self.record.save(self.directory)
            self._set_end_timer()

    # Steps of lifecycle changes. The caller holds the lock.

    async def _boot(self) -> None:
        self._confinement.make_directories(self.directory)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with (self.directory / LOG_FILE).open("wb") as output:
                # Not by asyncio or in another thread: --die-with-parent depends on the thread that forked, and this
                # one lives as long as the server. Forking takes about a millisecond.
                self._process = subprocess.Popen(  # noqa: ASYNC220
                    self._confinement.guest_command(self.directory, theirs.fileno()),
                    pass_fds=[theirs.fileno()],
                    env={"PATH": os.environ.get("PATH", os.defpath)},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
        except OSError as error:
            ours.close()
            raise BootFailed(str(error)) from error
        finally:
            theirs.close()
        link = self._link = GuestLink(ours, lambda reason: self._on_lost(link, reason))
        try:
            async with asyncio.timeout(BOOT_SECONDS):
                await link.call("stat", path="/")  # once it answers, it is up
                for port, serve in self._egress.listeners().items() if self._egress else ():
                    listening = await link.call("listen", port=port)
                    listener = socket.socket(fileno=listening.descriptors[0])
                    self._egress_servers.append(await serve(listener, self.id))
        except (TimeoutError, OSError) as error:
            await self._stop("the sandbox did not start")
            boot_log = (self.directory / LOG_FILE).read_text(errors="replace").strip()
            raise BootFailed(boot_log[-LOG_TAIL:] or str(error) or "no answer in time") from error
        self._running = True

    async def _stop(self, reason: str) -> None:
        """End the process tree. Files stay."""
        self._running = False
        link, process, servers = self._link, self._process, self._egress_servers
        self._link, self._process, self._egress_servers = None, None, []
        for server in servers:
            server.close()
        if link is not None:
            link.close(reason)
        for command in self.commands.values():
            await command.abandon(reason)
        self.commands.clear()
        for watcher in (*self.watch_streams, *self.watchers.values()):
            watcher.end(reason)
        self.watchers.clear()
        if process is not None:
            await asyncio.to_thread(_end_process, process)

    def _remember(self, state: State) -> None:
        self.record.state = state
        self.record.save(self.directory)

    # Changes without a request

    def _on_lost(self, link: GuestLink, reason: str) -> None:
        """Handle the death of pid 1: the sandbox is paused with only its files, and still ends in time."""
        if self._link is not link:
            return
        self._running = False
        for command in self.commands.values():
            command.lose_listeners(reason)
        log.warning("sandbox %s stopped by itself: %s", self.id, reason)

        async def clean_up() -> None:
            async with self._changing:
                if self._link is link:
                    await self._stop(reason)

        self._in_background(clean_up)

    def _set_end_timer(self) -> None:
        self._cancel_end_timer()
        left = max(0.0, self.record.end_at - time.time())
        self._end_timer = asyncio.get_running_loop().call_later(left, self._in_background, self._end)

    def _cancel_end_timer(self) -> None:
        if self._end_timer is not None:
            self._end_timer.cancel()
            self._end_timer = None

    async def _end(self) -> None:
        if self.record.end_at > time.time():  # extended meanwhile, or the clock was set back
            self._set_end_timer()
        elif not self.record.auto_pause:
            await self.kill()
        elif not await self.pause(memory=self.record.auto_pause_memory):
            self._remember("paused")  # its processes had ended already

    def _in_background(self, action: Callable[[], Coroutine[None, None, None]]) -> None:
        task = asyncio.get_running_loop().create_task(action())
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _end_process(process: subprocess.Popen[bytes]) -> None:
    """Wait for bubblewrap to end. Pid 1 ends because its channel is closed, everything in the sandbox ends with it, and
    then bubblewrap. Killing bubblewrap would end them, too, but leave pid 1 for the host's init to collect."""
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def remove_tree(directory: Path) -> None:
    """Remove a directory, whatever a sandbox has put into it.

    Uses `rm`, which follows no links and takes any depth; shutil's recursion ends at a thousand levels.
    """
    for argv in (["rm", "-rf"], ["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
        process = await asyncio.create_subprocess_exec(
            *argv, "--", str(directory), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        await process.wait()
        if not await asyncio.to_thread(directory.exists):
            return
    log.warning("%s could not be removed", directory)
