"""Runs builds under faults: the whole stack as processes, a proxy before each server, workers to kill."""

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

from activities.runtime.crash_point import CrashPoint
from clients.object_store import ObjectStore, store_config
from clients.sandbox import Sandboxes
from clients.temporal import connect_temporal
from db.migrate import migrate
from db.session import make_engine, make_sessions
from domain.names import build_workflow_id
from local.stack import LocalStack, PartName
from services.messages import send_message
from settings import Settings
from tests.faults.proxy import FaultProxy
from tests.faults.rigged_worker import start_worker
from tests.harness.worker import WorkerHarness, settings_of
from tests.processes import lives
from tests.wait import wait_until
from worker import sandbox_config

_URL_VARIABLES: Mapping[PartName, tuple[str, ...]] = {
    "postgres": ("DATABASE_URL",),
    "temporal": ("TEMPORAL_ADDRESS",),
    "s3": ("S3_ENDPOINT_URL",),
    "sandbox": ("E2B_API_URL", "E2B_SANDBOX_URL"),
    "model": ("ANTHROPIC_BASE_URL",),
}

SECRET = "planted-secret-of-the-operator-7Qw9"
"""A secret among the workers' settings that every build's first command prints: nothing may show it anywhere."""

WORKER_SETTINGS = {
    "API_TOKEN": SECRET,
    "GRACEFUL_SHUTDOWN_SECONDS": "1",
    "REAPER_SECONDS": "5",
    "REAPER_SPARES_SECONDS": "5",
    "STREAM_IDLE_SECONDS": "5",
}


class WorkerProcess:
    """A rigged worker in a process of its own. `log` is what it has logged."""

    def __init__(self, process: ForkServerProcess, log: Path) -> None:
        self._process = process
        self._family: list[psutil.Process] = []
        self.log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.exitcode is None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        with suppress(ProcessLookupError, psutil.Error):
            self._family += psutil.Process(self.pid).children(recursive=True)
            os.kill(self.pid, number)

    @property
    def has_started(self) -> bool:
        """Whether it has begun to ask for work."""
        return self.log.exists() and b'"worker started"' in self.log.read_bytes()

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait until it is gone, and what it had started: Chromium ends by itself, as its pipes close."""
        if self.is_running:
            self.send(number)
            self.send(signal.SIGCONT)
        await wait_until(lambda: not self.is_running)
        await wait_until(lambda: not any(map(lives, self._family)))


Front = Mapping[PartName, FaultProxy]


class FaultHarness:
    """The stack, its proxies and its workers. Made by `fault_harness()`."""

    def __init__(self, stack: LocalStack, directory: Path) -> None:
        self.stack = stack
        self.directory = directory
        self._proxies: list[FaultProxy] = []
        # Taken once: a server that is being started again has no variables meanwhile.
        self.environment: Mapping[str, str] = stack.environment
        found = self.environment
        self._ports: dict[PartName, int] = {
            "postgres": make_url(found["DATABASE_URL"]).port or 0,
            "temporal": int(found["TEMPORAL_ADDRESS"].rpartition(":")[2]),
            "s3": urlsplit(found["S3_ENDPOINT_URL"]).port or 0,
            "sandbox": urlsplit(found["E2B_API_URL"]).port or 0,
            "model": urlsplit(found["ANTHROPIC_BASE_URL"]).port or 0,
        }
        self.bodies = directory / "bodies"
        self.oracle = directory / "oracle"
        self.workers: list[WorkerProcess] = []

    async def open(self) -> None:
        """Connect the harness itself, past the proxies."""
        self.settings: Settings = settings_of(self.stack)
        self._engine = make_engine(self.settings.database_url)
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
        """Let go of connections to a database that has been killed."""
        await self._engine.dispose()

    def harness(self, queue: str | None = None) -> WorkerHarness:
        """A founder's and an operator's view, without a worker, on a task queue of its own unless one is given."""
        settings = self.settings.model_copy(update={"temporal_task_queue": queue or f"faults-{uuid.uuid4()}"})
        return WorkerHarness(settings, self.client, self.sessions, settings.anthropic_base_url or "")

    async def say(self, harness: WorkerHarness, build_id: uuid.UUID, text: str) -> None:
        """Say something to a build as its founder, as the API does it. It is acknowledged when this returns.

        Raises:
            Conflict: the build takes no more messages.
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
        """A proxy before each server, for the workers that are given it."""
        front = {part: FaultProxy(port) for part, port in self._ports.items()}
        for proxy in front.values():
            await proxy.start()
            self._proxies.append(proxy)
        return front

    async def worker(
        self, harness: WorkerHarness, front: Front | None = None, *, without: str = "", **settings: str
    ) -> WorkerProcess:
        """Start a worker for the harness's queue, behind proxies if there are any. It has started when this returns."""
        worker = self.launch(harness, front, without=without, **settings)
        await wait_until(lambda: worker.has_started or not worker.is_running)
        assert worker.is_running, worker.log.read_text()[-3000:]
        return worker

    def launch(
        self, harness: WorkerHarness, front: Front | None = None, *, without: str = "", **settings: str
    ) -> WorkerProcess:
        """Start a worker, which ends again by itself where a server does not answer it."""
        log = self.directory / f"worker-{len(self.workers)}.log"
        log.touch()  # it may be killed before it says anything
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "TMPDIR": tempfile.gettempdir(),
            **self._environment(front or {}),
            **WORKER_SETTINGS,
            **settings,
            "TEMPORAL_TASK_QUEUE": harness.settings.temporal_task_queue,
        }
        worker = WorkerProcess(start_worker(environment, log, self.rig, without), log)
        self.workers.append(worker)
        return worker

    def _environment(self, front: Front) -> dict[str, str]:
        """The stack's variables, with the proxies in the servers' places."""
        changed = dict(self.environment)
        for part, proxy in front.items():
            for name in _URL_VARIABLES[part]:
                changed[name] = changed[name].replace(f":{proxy.upstream}", f":{proxy.port}")
        return changed

    # ---- crash points

    @property
    def rig(self) -> Path:
        """Where rigged workers look for what to do."""
        return self.directory / "rig"

    def ask(self, point: CrashPoint, build_id: uuid.UUID, what: str) -> None:
        """Let the next worker that gets to the point in the build `kill` itself, or `hold`."""
        asked = self.rig / f"{point}@{build_workflow_id(build_id)}"
        written = self.directory / asked.name
        written.write_text(f"{what} {uuid.uuid4()}")
        written.rename(asked)  # whole: a worker may get there at any moment

    def has_reached(self, point: CrashPoint, build_id: uuid.UUID) -> bool:
        """Whether one has got there."""
        return self._reached(point, build_id).exists()

    def let_go(self, point: CrashPoint, build_id: uuid.UUID) -> None:
        """Let the one that is held go on."""
        self._reached(point, build_id).unlink(missing_ok=True)

    def _reached(self, point: CrashPoint, build_id: uuid.UUID) -> Path:
        return self.rig / f"{point}@{build_workflow_id(build_id)}.reached"

    # ---- the oracles

    def served(self) -> list[dict[str, Any]]:
        """What the model's stand-in says it served, oldest first."""
        return _whole_lines(self.stack.directory("model") / "served.jsonl")

    def effects(self) -> list[str]:
        """The calls that have taken effect outside of their workspaces, in all sandboxes ever: once for each time."""
        living, kept = self.stack.directory("sandbox") / "sandboxes", self.oracle / "tmp"
        ids = {path.name for path in living.iterdir()} | {path.name for path in kept.iterdir()}
        # A sandbox that is killed meanwhile has its /tmp moved from the first place to the second.
        texts = [_text_of(living / each / "tmp" / "effects", kept / each / "effects") for each in ids]
        return [word for text in texts for word in text.split()]

    def started(self) -> list[dict[str, Any]]:
        """The processes that the sandboxes' stand-in has started for its clients."""
        return _whole_lines(self.oracle / "started.jsonl")

    def crashed(self) -> list[str]:
        """The crash points that somebody has got to."""
        return [path.name.partition("@")[0] for path in self.rig.glob("*.reached")]

    def sandbox_directory(self, sandbox_id: str) -> Path:
        """Where a sandbox is on this machine."""
        return self.stack.directory("sandbox") / "sandboxes" / sandbox_id


@contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cf-") as made:
        directory = Path(made)
        (directory / "rig").mkdir()
        yield directory


@asynccontextmanager
async def fault_harness(scripts: Sequence[Mapping[str, Any]] = ()) -> AsyncIterator[FaultHarness]:
    """A stack of its own, on disk, as a database that dies has to find its data again.

    `scripts`: the rehearsal's from the start, as `{"match": …, "script": …}`.
    """
    with _directory() as directory:
        given = directory / "scripts.json"
        given.write_text(json.dumps({"scripts": list(scripts)}))
        # Each ready build has its preview's, and fault tests make them by the dozen.
        oracle = ("--oracle", str(directory / "oracle"), "--max-sandboxes", "300")
        model = ("--bodies", str(directory / "bodies"), "--scripts", str(given))
        async with LocalStack(temporal_ui=False, model_options=model, sandbox_options=oracle) as stack:
            await migrate(stack.environment["DATABASE_URL"])
            running = FaultHarness(stack, directory)
            await running.open()
            try:
                yield running
            finally:
                await running.close()


def _text_of(*places: Path) -> str:
    """The text of the first of these files that is there."""
    for path in places:
        with suppress(FileNotFoundError, NotADirectoryError):
            return path.read_text()
    return ""


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """What a log of JSON lines says; a line that is still being written is left out."""
    lines = _text_of(path).splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


async def copy_tree(source: Path, target: Path) -> None:
    """Copy all that is in a directory, as it is, into another; what goes away meanwhile is left out."""
    process = await asyncio.create_subprocess_exec("cp", "-a", f"{source}/.", str(target), stderr=DEVNULL)
    await process.wait()


async def put_back(source: Path, target: Path) -> None:
    """Let a directory hold what another does; itself it stays the same, as whoever has it open needs it."""
    for there in target.iterdir():  # noqa: ASYNC240 - of this machine's disk, like all here
        await asyncio.to_thread(shutil.rmtree, there)
    await copy_tree(source, target)
