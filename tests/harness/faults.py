"""Runs builds under faults: the whole stack as processes, a proxy in front of each server, and workers to kill."""

import asyncio
import json
import os
import shutil
import signal
import tempfile
import uuid
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from sqlalchemy.engine import make_url
from sqlalchemy.pool import Pool
from sqlalchemy.util import greenlet_spawn

from activities.runtime.crash_point import CrashPoint
from clients.object_store import ObjectStore, store_config
from clients.sandbox import Sandboxes, sandbox_config
from clients.temporal import connect_temporal
from db.migrate import migrate
from db.session import make_engine, make_sessions
from domain.names import build_workflow_id
from local.stack import LocalStack, PartName
from services.messages import send_message
from settings import Settings
from tests.harness.fault_proxy import FaultProxy
from tests.harness.planted import PLANTED_KEY, count_arrived
from tests.harness.processes import lives
from tests.harness.rigged_worker import start_worker
from tests.harness.wait import DEADLINE, wait_until
from tests.harness.worker import WorkerHarness, changed_prices, settings_of

_URL_VARIABLES: Mapping[PartName, tuple[str, ...]] = {
    "postgres": ("DATABASE_URL",),
    "temporal": ("TEMPORAL_ADDRESS",),
    "s3": ("S3_ENDPOINT_URL",),
    "sandbox": ("E2B_API_URL", "E2B_SANDBOX_URL"),
    "model": ("ANTHROPIC_BASE_URL",),
}

SECRET = "planted-secret-of-the-operator-7Qw9"
"""A secret in the workers' settings that the first command of every build prints. It must not appear anywhere."""

_STARTS = 3
"""On a busy machine the database may answer later than a starting worker waits. It is started again, as by systemd."""

LONG_AT = 40_000
"""Tokens at which these workers sum up a conversation. Only a long sample build gets there."""

WORKER_SETTINGS = {
    "API_TOKEN": SECRET,
    "SECRETS_KEY": PLANTED_KEY,
    "GRACEFUL_SHUTDOWN_SECONDS": "1",
    "REAPER_SECONDS": "5",
    "PROBER_SECONDS": "5",
    "REAPER_SPARES_SECONDS": "5",
    "STREAM_IDLE_SECONDS": "5",
    "MODEL_PRICES": json.dumps(
        {name: price.model_dump(mode="json") for name, price in changed_prices(compact_at=LONG_AT).items()}
    ),
}


class WorkerProcess:
    """A rigged worker in a process of its own. `log` is its log file."""

    def __init__(self, process: ForkServerProcess, log: Path) -> None:
        self._process = process
        self._family: list[psutil.Process] = []
        self.log = log

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.exitcode is None

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        with suppress(ProcessLookupError, psutil.Error):
            self._family += psutil.Process(self.pid).children(recursive=True)
            os.kill(self.pid, number)

    def has_started_or_ended(self) -> bool:
        """Whether it serves, or does not any more."""
        return self.has_started or not self.is_running

    @property
    def has_started(self) -> bool:
        """Whether the worker has begun to poll for work."""
        return self.log.exists() and b'"worker started"' in self.log.read_bytes()

    async def end(self, number: signal.Signals = signal.SIGTERM, *, kill_after: float = DEADLINE) -> None:
        """End the process, and wait until it and its children are gone. Chromium ends when its pipes close.

        `kill_after`: kill it if the signal has not ended it within this many seconds.
        """
        if self.is_running:
            self.send(number)
            self.send(signal.SIGCONT)
        try:
            await wait_until(lambda: not self.is_running, seconds=kill_after)
        except TimeoutError:
            self.send(signal.SIGKILL)
            await wait_until(lambda: not self.is_running)
        await wait_until(lambda: not any(map(lives, self._family)))


Front = Mapping[PartName, FaultProxy]


class FaultHarness:
    """The stack, its proxies and its workers. Create it with `fault_harness()`."""

    def __init__(self, stack: LocalStack, directory: Path) -> None:
        self.stack = stack
        self.directory = directory
        self._proxies: list[FaultProxy] = []
        # Read once: while a server restarts, its variables are missing.
        self.environment: Mapping[str, str] = stack.environment
        urls = self.environment
        self._ports: dict[PartName, int] = {
            "postgres": make_url(urls["DATABASE_URL"]).port or 0,
            "temporal": int(urls["TEMPORAL_ADDRESS"].rpartition(":")[2]),
            "s3": urlsplit(urls["S3_ENDPOINT_URL"]).port or 0,
            "sandbox": urlsplit(urls["E2B_API_URL"]).port or 0,
            "model": urlsplit(urls["ANTHROPIC_BASE_URL"]).port or 0,
        }
        self.bodies = directory / "bodies"
        self._bodies_read: dict[Path, str] = {}
        self.oracle = directory / "oracle"
        self._served = _GrowingLog(stack.directory("model") / "served.jsonl")
        self._started = _GrowingLog(self.oracle / "started.jsonl")
        self.workers: list[WorkerProcess] = []

    async def open(self) -> None:
        """Connect the harness itself directly, not through the proxies."""
        self.settings: Settings = settings_of(self.stack)
        self._engine = make_engine(self.settings.database_url)
        self._pools: list[Pool] = []
        self.sessions = make_sessions(self._engine)
        self.client = await connect_temporal(self.environment)
        self.sandboxes = Sandboxes(sandbox_config(self.settings))
        self.store = ObjectStore(store_config(self.settings))
        await self.store.__aenter__()

    async def close(self) -> None:
        """End the workers and the harness's own connections."""
        for worker in self.workers:
            await worker.end(signal.SIGKILL)
        for proxy in self._proxies:
            await proxy.close()
        await self.store.__aexit__(None, None, None)
        await self.sandboxes.close()
        await self._engine.dispose()

    async def forget_connections(self) -> None:
        """Drop the connections to a database that has been killed or put back. One that is in use stays open after its
        use until the next call."""
        self._pools.append(self._engine.pool)
        await self._engine.dispose()
        for pool in self._pools:
            await greenlet_spawn(pool.dispose)

    async def lose_namespace(self) -> None:
        """Kill Temporal, delete its database, and start it again: the namespace has the same name and is empty."""
        server = psutil.Process(self.stack.pid("temporal"))
        self.stack.kill("temporal")
        await wait_until(lambda: not lives(server))
        for file in self.stack.directory("temporal").glob("temporal.db*"):
            file.unlink()
        await self.stack.restart("temporal")

    def harness(self, queue: str | None = None) -> WorkerHarness:
        """Return a worker harness without a worker, on the given task queue or on a new one."""
        settings = self.settings.model_copy(update={"temporal_task_queue": queue or f"faults-{uuid.uuid4()}"})
        return WorkerHarness(settings, self.client, self.sessions, settings.anthropic_base_url or "")

    async def say(self, harness: WorkerHarness, build_id: uuid.UUID, text: str) -> None:
        """Send a message to a build as its founder, as the API does. It is acknowledged when this returns.

        Raises:
            Conflict: the build no longer accepts messages.
        """
        user_id = (await harness.row(build_id)).user_id
        await send_message(
            self.sessions,
            harness.builds,
            user_id,
            build_id,
            text,
            idempotency_key=str(uuid.uuid4()),
            secrets=self.settings.secret_values(),
        )

    async def front(self) -> Front:
        """Start a proxy in front of each server, for workers that are started with it."""
        front = {part: FaultProxy(port) for part, port in self._ports.items()}
        for proxy in front.values():
            await proxy.start()
            self._proxies.append(proxy)
        return front

    async def worker(
        self,
        harness: WorkerHarness,
        front: Front | None = None,
        *,
        without: str = "",
        is_rigged: bool = True,
        **settings: str,
    ) -> WorkerProcess:
        """Start a worker for the harness's queue, behind proxies if there are any. It has started when this returns.

        `is_rigged`: its crash points follow instructions.
        """
        for _ in range(_STARTS):
            worker = self.launch(harness, front, without=without, is_rigged=is_rigged, **settings)
            await wait_until(worker.has_started_or_ended)
            if worker.is_running or "TimeoutError" not in worker.log.read_text()[-300:]:
                break
        assert worker.is_running, worker.log.read_text()[-3000:]
        return worker

    def launch(
        self,
        harness: WorkerHarness,
        front: Front | None = None,
        *,
        without: str = "",
        is_rigged: bool = True,
        **settings: str,
    ) -> WorkerProcess:
        """Start a worker without waiting. It ends by itself if a server does not answer."""
        log = self.directory / f"worker-{len(self.workers)}.log"
        log.touch()  # it may be killed before it logs anything
        environment = {
            **self.process_environment(front or {}),
            **WORKER_SETTINGS,
            **settings,
            "TEMPORAL_TASK_QUEUE": harness.settings.temporal_task_queue,
        }
        rig = self.rig if is_rigged else self.directory / "no-rig"
        worker = WorkerProcess(start_worker(environment, log, rig, without), log)
        self.workers.append(worker)
        return worker

    def process_environment(self, front: Front) -> dict[str, str]:
        """Return the variables of a process: the stack's, with the proxies' ports instead of the servers'."""
        own = {"PATH": os.environ["PATH"], "HOME": str(self.directory), "TMPDIR": tempfile.gettempdir()}
        changed = {**own, **self.environment}
        for part, proxy in front.items():
            for name in _URL_VARIABLES[part]:
                changed[name] = changed[name].replace(f":{proxy.upstream}", f":{proxy.port}")
        return changed

    # ---- crash points

    @property
    def rig(self) -> Path:
        """The directory in which rigged workers look for instructions."""
        return self.directory / "rig"

    def ask(self, point: CrashPoint, build_id: uuid.UUID, what: str) -> None:
        """Tell the next worker that reaches the point in the build to `kill` itself or to `hold`."""
        request = self.rig / f"{point}@{build_workflow_id(build_id)}"
        unfinished = self.directory / request.name
        unfinished.write_text(f"{what} {uuid.uuid4()}")
        unfinished.rename(request)  # atomic: a worker may get there at any moment

    def has_reached(self, point: CrashPoint, build_id: uuid.UUID) -> bool:
        """Whether a worker has reached the point in the build."""
        return self._reached(point, build_id).exists()

    def release(self, point: CrashPoint, build_id: uuid.UUID) -> None:
        """Release the worker that is held at the point."""
        self._reached(point, build_id).unlink(missing_ok=True)

    def _reached(self, point: CrashPoint, build_id: uuid.UUID) -> Path:
        return self.rig / f"{point}@{build_workflow_id(build_id)}.reached"

    # ---- the oracles

    def served(self) -> list[dict[str, Any]]:
        """Return the calls that the rehearsal model served, oldest first."""
        return self._served.lines()

    def bodies_sent(self) -> dict[Path, str]:
        """Return the requests to the model as JSON texts by their files, in order of arrival.

        They are kept: after an hour of faults they are read for each of hundreds of builds.
        """
        for path in sorted(set(self.bodies.glob("*.json")) - self._bodies_read.keys()):
            text = path.read_text(errors="replace")
            with suppress(json.JSONDecodeError):  # still being written
                json.loads(text)
                self._bodies_read[path] = text
        return dict(sorted(self._bodies_read.items()))

    def effects(self) -> list[str]:
        """Return the ids of calls that took effect outside their workspaces in any sandbox, once for each time."""
        living, kept = self.stack.directory("sandbox") / "sandboxes", self.oracle / "tmp"
        ids = {path.name for path in living.iterdir()} | {path.name for path in kept.iterdir()}
        # If a sandbox is killed meanwhile, its /tmp moves from the first directory to the second.
        texts = [_text_of(living / each / "tmp" / "effects", kept / each / "effects") for each in ids]
        return [word for text in texts for word in text.split()]

    def started(self) -> list[dict[str, Any]]:
        """Return the processes that the local sandbox server has started for its clients."""
        return self._started.lines()

    def previews_with_secrets(self) -> int:
        """Count the sandboxes whose product was started with the planted secrets."""
        return count_arrived(self.stack.directory("sandbox") / "sandboxes", self.oracle / "tmp")

    def crashed(self) -> list[str]:
        """Return the crash points that workers have reached on instruction."""
        return [path.name.partition("@")[0] for path in self.rig.glob("*.reached")]

    def sandbox_directory(self, sandbox_id: str) -> Path:
        """Return the directory of a sandbox on this machine."""
        return self.stack.directory("sandbox") / "sandboxes" / sandbox_id


@contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cf-") as name:
        directory = Path(name)
        (directory / "rig").mkdir()
        yield directory


@asynccontextmanager
async def fault_harness(
    scripts: Sequence[Mapping[str, Any]] = (), sandbox_options: Sequence[str] = ()
) -> AsyncIterator[FaultHarness]:
    """Start a stack of its own, on disk, so that a killed database finds its data again.

    `scripts` are the rehearsal model's from the start, as `{"match": …, "script": …}`; `sandbox_options` are further
    ones of the sandbox server.
    """
    with _directory() as directory:
        scripts_file = directory / "scripts.json"
        scripts_file.write_text(json.dumps({"scripts": list(scripts)}))
        # Each ready build keeps the sandbox of its preview, and fault tests make dozens of builds.
        oracle = ("--oracle", str(directory / "oracle"), "--max-sandboxes", "300", *sandbox_options)
        model = ("--bodies", str(directory / "bodies"), "--scripts", str(scripts_file))
        async with LocalStack(temporal_ui=False, model_options=model, sandbox_options=oracle) as stack:
            await migrate(stack.environment["DATABASE_URL"])
            running = FaultHarness(stack, directory)
            await running.open()
            try:
                yield running
            finally:
                await running.close()


def _text_of(*paths: Path) -> str:
    """Return the text of the first of these files that exists, or an empty one."""
    for path in paths:
        with suppress(FileNotFoundError, NotADirectoryError):
            return path.read_text()
    return ""


class _GrowingLog:
    """A log of JSON lines. What was read is kept: after an hour of faults it is read once for each of many builds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[dict[str, Any]] = []
        self._read = 0

    def lines(self) -> list[dict[str, Any]]:
        """Parse it, without a last line that is still being written."""
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read += len(whole)
            self._lines += map(json.loads, whole.splitlines())
        return list(self._lines)


async def copy_tree(source: Path, target: Path) -> None:
    """Copy the contents of a directory into another, with their attributes. Skip files that vanish meanwhile."""
    process = await asyncio.create_subprocess_exec("cp", "-a", f"{source}/.", str(target), stderr=DEVNULL)
    await process.wait()


async def put_back(source: Path, target: Path) -> None:
    """Replace the contents of a directory by those of another. Keep the directory itself, as processes have it open."""
    for entry in target.iterdir():  # noqa: ASYNC240 - of this machine's disk, like all here
        await asyncio.to_thread(shutil.rmtree, entry)
    await copy_tree(source, target)
