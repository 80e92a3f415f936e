"""The embedded stack: every server that the program needs, on one machine, with its data in one directory.

async with LocalStack(Path(".cofounder/local")) as stack:
    os.environ.update(stack.environment)
    await stack.wait()
"""

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from domain.egress import DEFAULT_SETS, hosts_of
from local import object_store
from local.errors import DataInUse, PartDied, PartFailed, StackError
from local.object_store import ObjectStore
from local.operator_network import OperatorNetwork
from local.own_servers import Egress, rehearsal_model, sandbox_server
from local.ports import Ports
from local.postgres import Postgres
from local.process import Command, GuardedProcess, Part, Remover, output_of
from local.temporal import Temporal

PartName = Literal["postgres", "temporal", "s3", "sandbox", "model"]
PARTS: tuple[PartName, ...] = ("postgres", "temporal", "s3", "sandbox", "model")

DEFAULT_BUCKET = "cofounder-snapshots"

_INNER_PORTS: Mapping[PartName, Sequence[str]] = {
    "postgres": (),
    "temporal": ("temporal.ui", "temporal.http", "temporal.metrics"),
    "s3": tuple(f"s3.{name}" for name in object_store.INNER_PORTS),
    "sandbox": ("sandbox.proxy",),
    "model": (),
}
_POLL_SECONDS = 0.05
_LOG_LINES = 15
_ORPHANS_SECONDS = 30.0
"""Wait this many seconds for the parts of a stack whose owner was killed: they are stopping."""


@dataclass(frozen=True)
class Progress:
    """One step of one part, to show to people. `seconds` is how long the step took."""

    part: PartName
    state: Literal["starting", "ready", "stopping", "stopped"]
    seconds: float = 0.0


class LocalStack:
    """Starts, supervises and stops the parts.

    - `data`: the data directory; created if missing, kept afterwards. Without it: a temporary directory, removed at the
      end, even if this process is killed. One stack at a time uses a directory (else `DataInUse`).
    - `parts`: which servers to run.
    - `port_of`: requested ports, by part or by inner name (`temporal.ui`); `PortBusy` if one is taken. The others are
      the same as last time in this directory, or free ones.
    - `durable=False`: no fsync, and Temporal in memory. For tests.
    - `time_skipping`: lets tests skip Temporal's timers.
    - `fair=False`: Temporal serves its queues in order of arrival, as other servers do by default.
    - `temporal_config`: dynamic configuration of Temporal's server, as JSON by key.
    - `egress`, `allow`, `network`: what sandboxes may reach, see `sandbox_server`.
    - `model_options`: more options of the rehearsal model, see `python -m local.rehearsal --help`.
    - `sandbox_options`: more options of the sandbox server, see `python -m local.sandbox --help`.

    Raises `StackError` with a message for people. Everything listens on 127.0.0.1 only.
    """

    def __init__(
        self,
        data: Path | None = None,
        *,
        parts: Iterable[PartName] = PARTS,
        port_of: Mapping[str, int] | None = None,
        bucket: str = DEFAULT_BUCKET,
        durable: bool = True,
        time_skipping: bool = False,
        fair: bool = True,
        temporal_config: Mapping[str, str] | None = None,
        temporal_ui: bool = True,
        egress: Egress = "none",
        allow: Sequence[str] = (),
        network: OperatorNetwork | None = None,
        model_options: Sequence[str] = (),
        sandbox_options: Sequence[str] = (),
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        names = set(parts)
        if unknown := names - set(PARTS):
            raise StackError(f"No such part: {', '.join(sorted(unknown))}. Choose from: {', '.join(PARTS)}.")
        self.parts: tuple[PartName, ...] = tuple(part for part in PARTS if part in names)
        self._requested_data = data
        self._port_of = dict(port_of or {})
        self._bucket = bucket
        self._durable = durable
        self._time_skipping = time_skipping
        self._fair = fair
        self._temporal_config = dict(temporal_config or {})
        self._temporal_ui = temporal_ui
        self._egress = egress
        self._allow = tuple(allow)
        self._network = network or OperatorNetwork()
        self._model_options = tuple(model_options)
        self._sandbox_options = tuple(sandbox_options)
        self._on_progress = on_progress

        self._data: Path | None = None
        self._lock: int | None = None
        self._remover: Remover | None = None
        self._ports = Ports()
        self._servers: dict[PartName, Part] = {}
        self._processes: dict[PartName, GuardedProcess] = {}
        self._watchers: set[asyncio.Task[None]] = set()
        self._expected_to_end: set[PartName] = set()
        self._death: asyncio.Future[PartDied] | None = None

    # -- public --------------------------------------------------------------------------------------------------

    @property
    def data(self) -> Path:
        """The data directory."""
        if self._data is None:
            raise StackError("The stack is not started.")
        return self._data

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point clients at the running parts."""
        variables: dict[str, str] = {}
        for part in self.parts:
            variables |= self._servers[part].environment()
        if "model" in self.parts:
            variables["REHEARSAL_MODEL"] = "true"
        if "sandbox" in self.parts:
            hosts = (*hosts_of(self._allow or DEFAULT_SETS), *self._network.private_hosts)
            variables["SANDBOX_EGRESS_HOSTS"] = ",".join(dict.fromkeys(hosts)) if self._egress == "proxy" else "none"
        return variables

    @property
    def temporal_ui_url(self) -> str | None:
        """The address of Temporal's UI, or None if it does not run."""
        server = self._servers.get("temporal")
        return server.ui_url if isinstance(server, Temporal) else None

    def directory(self, part: PartName) -> Path:
        """The directory of the part's data."""
        return self.data / part

    def log(self, part: PartName) -> Path:
        """The file of the part's standard error."""
        return self.data / "logs" / f"{part}.log"

    def pid(self, part: PartName) -> int:
        """The process id of the part's server."""
        return self._processes[part].pid

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the parts side by side, and return when all of them work. On an error nothing is left running."""
        try:
            await self._open_data()
            self._death = asyncio.get_running_loop().create_future()
            self._servers = self._configure()
            await _all_or_first_error([self._start_part(part) for part in self.parts])
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop everything, and wait until it is gone. May be called at any time, and twice.

        The first steps do not wait for anything, so even a stop that is cancelled leaves nothing behind.
        """
        self._expected_to_end |= set(self._processes)
        for process in self._processes.values():
            process.release()
        try:
            await asyncio.gather(*(self._stop_part(part) for part in list(self._processes)))
            if self._watchers:
                await asyncio.wait(self._watchers)
        finally:
            self._ports.release()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None
            remover, self._remover = self._remover, None
            if remover is not None:
                await remover.stop()

    async def wait(self) -> None:
        """Wait until a part ends by itself. Raises `PartDied`, which names it."""
        if self._death is None:
            raise StackError("The stack is not started.")
        raise await asyncio.shield(self._death)

    def kill(self, part: PartName, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the part's server, for fault tests. `wait()` does not report the server's end."""
        self._expected_to_end.add(part)
        self._processes[part].signal(number)

    async def restart(self, part: PartName) -> None:
        """Stop the part if it still runs, and start it again with the same ports, data and credentials."""
        self._expected_to_end.add(part)
        await self._stop_part(part)
        await self._start_part(part)

    async def start_beside(self, command: Command, *, log: Path) -> GuardedProcess:
        """Start another program under a guard of its own. The caller stops it before it stops the stack.

        However this process ends, the program ends with it. A temporary data directory is removed only afterwards.
        """
        if self._lock is None:
            raise StackError("The stack is not started.")
        return await GuardedProcess.start(command, directory=self.data, log=log, lock=self._lock)

    # -- one part ------------------------------------------------------------------------------------------------

    async def _start_part(self, part: PartName) -> None:
        started = time.monotonic()
        self._report(part, "starting")
        server = self._servers[part]
        await server.prepare(lambda command: self._run(part, command))
        process = await self._spawn(part, server.command())
        self._processes[part] = process
        self._expected_to_end.discard(part)
        deadline = started + server.start_seconds
        last_error: Exception | None = None
        while True:
            if process.exit_code.done():
                del self._processes[part]
                raise self._failure(part, f"ended at once, with exit code {process.exit_code.result()}")
            try:
                async with asyncio.timeout(10):
                    if await server.is_ready():
                        break
            except Exception as error:  # any error means that the server is not ready yet
                last_error = error
            if time.monotonic() > deadline:
                reason = f"; the last attempt to use it failed: {last_error}" if last_error else ""
                raise self._failure(part, f"was not ready after {server.start_seconds:.0f} seconds{reason}")
            await asyncio.wait({process.exit_code}, timeout=_POLL_SECONDS)
        process.has_served = True
        watcher = asyncio.create_task(self._watch(part, process))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)
        self._report(part, "ready", time.monotonic() - started)

    async def _stop_part(self, part: PartName) -> None:
        process = self._processes.get(part)
        if process is None:
            return
        started = time.monotonic()
        self._report(part, "stopping")
        await process.stop()
        if self._processes.get(part) is process:
            del self._processes[part]
        self._report(part, "stopped", time.monotonic() - started)

    async def _watch(self, part: PartName, process: GuardedProcess) -> None:
        code = await asyncio.shield(process.exit_code)
        if part in self._expected_to_end or self._death is None or self._death.done():
            return
        message = f"{part} ended unexpectedly, with exit code {code}.{self._end_of_log(part)}"
        self._death.set_result(PartDied(part, message))

    async def _spawn(self, part: PartName, command: Command) -> GuardedProcess:
        if self._lock is None:
            raise StackError("The stack is not started.")
        return await GuardedProcess.start(command, directory=self.directory(part), log=self.log(part), lock=self._lock)

    async def _run(self, part: PartName, command: Command) -> None:
        process = await self._spawn(part, command)
        try:
            code = await asyncio.shield(process.exit_code)
        finally:
            await process.stop()
        if code != 0:
            raise self._failure(part, f"could not be prepared: {Path(command.arguments[0]).name} ended with {code}")

    def _failure(self, part: PartName, what: str) -> PartFailed:
        return PartFailed(part, f"{part} {what}.{self._end_of_log(part)}\n{self._servers[part].hint}")

    def _end_of_log(self, part: PartName) -> str:
        with contextlib.suppress(OSError):
            lines = self.log(part).read_text(errors="replace").splitlines()[-_LOG_LINES:]
            if lines:
                return "\n".join([f" Its log ({self.log(part)}) ends with:", *(f"  {line}" for line in lines)])
        return " Its log is empty."

    def _report(self, part: PartName, state: Literal["starting", "ready", "stopping", "stopped"], s: float = 0) -> None:
        if self._on_progress is not None:
            self._on_progress(Progress(part, state, s))

    # -- the directory -------------------------------------------------------------------------------------------

    async def _open_data(self) -> None:
        if self._requested_data is None:
            self._data = _temporary_directory()
            (self._data / "lock").touch(mode=0o600)
            self._remover = await Remover.start(self._data)
        else:
            self._data = self._requested_data.expanduser().resolve()
            try:
                self._data.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StackError(
                    f"The data directory {self._data} cannot be made: {error.strerror}. Choose another with --data."
                ) from None
        if not os.access(self._data, os.W_OK | os.X_OK):
            raise StackError(f"The data directory {self._data} is not writable. Choose another with --data.")
        if os.geteuid() == 0:
            self._data.chmod(0o711)  # PostgreSQL runs as another user, who has to enter its own directory in it
        self._lock = await self._take_lock(self._data / "lock")
        (self._data / "logs").mkdir(mode=0o700, exist_ok=True)
        # No process uses these files any more: this one has the lock.
        shutil.rmtree(self._data / "tmp", ignore_errors=True)
        (self._data / "tmp").mkdir(mode=0o700)

    async def _take_lock(self, path: Path) -> int:
        """Lock the directory. The guards of a killed stack hold its lock until they have stopped its parts."""
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + _ORPHANS_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                owner = int(os.pread(lock, 32, 0) or b"0")
                if _is_alive(owner) or time.monotonic() > deadline:
                    os.close(lock)
                    raise DataInUse(
                        f"Another stack (process {owner}) uses {path.parent}. "
                        "Stop it, or choose another directory with --data."
                    ) from None
            try:
                await asyncio.sleep(_POLL_SECONDS)
            except BaseException:
                os.close(lock)
                raise
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        return lock

    def _credentials(self) -> dict[str, str]:
        """Return this directory's credentials, created at its first use. The servers' data depends on them."""
        path = self.data / "credentials.json"
        credentials: dict[str, str]
        if path.exists():
            credentials = json.loads(path.read_text())
            return credentials
        credentials = {
            "postgres_password": secrets.token_urlsafe(18),
            "s3_access_key": secrets.token_hex(10),
            "s3_secret_key": secrets.token_urlsafe(30),
            "sandbox_api_key": f"e2b_{secrets.token_hex(20)}",
        }
        _write_private(path, json.dumps(credentials, indent=1))
        return credentials

    def _choose_ports(self) -> dict[str, int]:
        """Return a port for every part and its inner servers: the requested one, last time's, or a free one."""
        path = self.data / "ports.json"
        previous: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
        names = [name for part in self.parts for name in (part, *_INNER_PORTS[part])]
        if unknown := set(self._port_of) - set(names):
            raise StackError(
                f"No such part: {', '.join(sorted(unknown))}. Choose a port for one of: {', '.join(names)}."
            )
        ports: dict[str, int] = {}
        for name in names:
            if name in self._port_of:
                self._ports.demand(self._port_of[name], name)
                ports[name] = self._port_of[name]
        for name in names:
            if name not in ports:
                last = previous.get(name)
                if last is not None and self._ports.take(last):
                    ports[name] = last
                else:
                    ports[name] = self._ports.choose(set(previous.values()))
        _write_private(path, json.dumps(previous | ports, indent=1))
        return ports

    def _configure(self) -> dict[PartName, Part]:
        port, credentials = self._choose_ports(), self._credentials()
        temporary = self.data / "tmp"

        def make(part: PartName) -> Part:
            directory = self.directory(part)
            directory.mkdir(exist_ok=True)
            if os.geteuid() == 0:
                directory.chmod(0o711)
            output = output_of(self.log(part))
            match part:
                case "postgres":
                    return Postgres(
                        directory, port=port[part], password=credentials["postgres_password"], durable=self._durable
                    )
                case "temporal":
                    return Temporal(
                        directory,
                        port=port[part],
                        http_port=port["temporal.http"],
                        metrics_port=port["temporal.metrics"],
                        ui_port=port["temporal.ui"] if self._temporal_ui else None,
                        in_memory=not self._durable,
                        time_skipping=self._time_skipping,
                        fair=self._fair,
                        config=self._temporal_config,
                    )
                case "s3":
                    return ObjectStore(
                        directory,
                        port=port[part],
                        inner_ports={name: port[f"s3.{name}"] for name in object_store.INNER_PORTS},
                        access_key=credentials["s3_access_key"],
                        secret_key=credentials["s3_secret_key"],
                        bucket=self._bucket,
                        temporary=temporary,
                    )
                case "sandbox":
                    return sandbox_server(
                        directory,
                        port=port[part],
                        proxy_port=port["sandbox.proxy"],
                        egress=self._egress,
                        allow=self._allow,
                        network=self._network,
                        api_key=credentials["sandbox_api_key"],
                        output=output,
                        temporary=temporary,
                        options=self._sandbox_options,
                    )
                case "model":
                    return rehearsal_model(
                        directory, port=port[part], options=self._model_options, output=output, temporary=temporary
                    )

        return {part: make(part) for part in self.parts}


async def _all_or_first_error(steps: Sequence[Awaitable[None]]) -> None:
    """Run the steps side by side. At the first error cancel the others, wait for them, and raise it."""
    tasks = [asyncio.ensure_future(step) for step in steps]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _temporary_directory() -> Path:
    """Make a temporary directory for the data.

    Sandboxes run what agents install there. So if the usual place is mounted noexec, make it in `.cofounder`.
    """
    try:
        parent = Path(tempfile.gettempdir())
        if sys.platform.startswith("linux") and os.statvfs(parent).f_flag & os.ST_NOEXEC:
            parent = Path(".cofounder").resolve()
            parent.mkdir(exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="cofounder-", dir=parent))
    except OSError as error:
        raise StackError(
            f"Cannot make a temporary directory: {error}. Set TMPDIR to a directory that you may write to."
        ) from None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0


def _write_private(path: Path, text: str) -> None:
    unfinished = path.with_suffix(".new")
    unfinished.touch(mode=0o600)
    unfinished.write_text(text)
    unfinished.replace(path)
