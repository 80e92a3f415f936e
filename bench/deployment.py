"""Start what the benchmarks measure: the whole stack as processes, durable as in production, and its workers."""

import asyncio
import contextlib
import os
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from sqlalchemy import func, select, text

from clients.temporal import connect_temporal
from db.migrate import migrate
from db.models import Message, Prompt, ToolCall
from db.session import make_engine, make_sessions
from local.process import Command
from local.stack import PARTS, LocalStack, PartName
from tests.harness.worker import WorkerHarness, settings_of

_ROOT = Path(__file__).parent.parent

_WORKER_SETTINGS = {"TOOL_CALL_CAP": "1000000", "GRACEFUL_SHUTDOWN_SECONDS": "1"}

_START_SECONDS = 60.0
"""Seconds that a program may take to log that it has started."""


@dataclass(frozen=True)
class Usage:
    """What a process has used since its start."""

    cpu_seconds: float
    peak_bytes: int


class Process:
    """A program of this repository in a process of its own."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self._process = psutil.Process(pid)
        self._log = log

    def usage(self) -> Usage:
        """CPU time of the process itself and its peak memory (Linux's VmHWM)."""
        times = self._process.cpu_times()
        status = Path(f"/proc/{self.pid}/status").read_text()
        peak = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)
        return Usage(times.user + times.system, peak * 1024)

    async def wait_for_log(self, words: str) -> None:
        """Wait until its log contains the words."""
        async with asyncio.timeout(_START_SECONDS):
            while words not in self._log.read_text(errors="replace"):
                if not self._process.is_running() or self._process.status() == psutil.STATUS_ZOMBIE:
                    raise RuntimeError(
                        f"A process ended before it logged {words!r}. Its log: {self._log.read_text()[-3000:]}"
                    )
                await asyncio.sleep(0.05)


@dataclass
class BenchStack:
    """The running servers, and a test harness on a task queue of its own. No worker runs yet."""

    servers: LocalStack
    harness: WorkerHarness
    directory: Path

    @asynccontextmanager
    async def workers(self, count: int = 1, **settings: str) -> AsyncIterator[Sequence[Process]]:
        """Run `count` workers, each a `python worker.py`, while the block runs; all are ready when it begins.

        `settings`: environment variables of theirs.
        """
        variables = {**_WORKER_SETTINGS, "TEMPORAL_TASK_QUEUE": self.harness.settings.temporal_task_queue, **settings}
        async with AsyncExitStack() as exits:
            program = [str(_ROOT / "worker.py")]
            workers = [await exits.enter_async_context(self.program(program, variables)) for _ in range(count)]
            for process in workers:
                await process.wait_for_log('"worker started"')
            yield workers

    @asynccontextmanager
    async def program(self, arguments: Sequence[str], variables: Mapping[str, str]) -> AsyncIterator[Process]:
        """Run a Python program of this repository while the block runs."""
        log = self.directory / f"{uuid.uuid4()}.log"
        environment = {
            **{"PATH": os.environ["PATH"], "HOME": str(self.directory), "TMPDIR": tempfile.gettempdir()},
            **{"LANG": "C.UTF-8", "PYTHONPATH": str(_ROOT), **self.servers.environment, **variables},
        }
        command = Command(arguments=[sys.executable, *arguments], environment=environment)
        guarded = await self.servers.start_beside(command, log=log)
        guarded.has_served = True  # it gets a regular stop
        try:
            yield Process(guarded.pid, log)
        finally:
            await guarded.stop()

    def cpu_by_part(self) -> dict[str, float]:
        """CPU seconds that each server has used so far, its child processes included.

        A sandbox's commands count as the sandbox server's.
        """
        return {part: _cpu_of_tree(self.servers.pid(part)) for part in self.servers.parts}

    async def database_bytes(self) -> int:
        """The size of all tables with TOAST and indexes, dead rows included."""
        query = text(
            "select sum(pg_total_relation_size(oid)) from pg_class "
            "where relkind = 'r' and relnamespace = 'public'::regnamespace"
        )
        async with self.harness.session() as tx:
            return int(await tx.session.scalar(query) or 0)

    async def conversation_bytes(self, builds: Sequence[uuid.UUID]) -> int:
        """Bytes of the builds' conversations as sent: prompt, messages and tool results."""
        messages = select(func.sum(func.octet_length(Message.content))).where(Message.build_id.in_(builds))
        results = select(func.sum(func.octet_length(ToolCall.result))).where(ToolCall.build_id.in_(builds))
        prompts = select(func.sum(func.octet_length(Prompt.system) + func.octet_length(Prompt.tools))).where(
            Prompt.build_id.in_(builds)
        )
        async with self.harness.session() as tx:
            return sum([int(await tx.session.scalar(part) or 0) for part in (prompts, messages, results)])


def _cpu_of_tree(pid: int) -> float:
    """CPU seconds of the process, its descendants, and the children that they have reaped."""
    seconds = 0.0
    top = psutil.Process(pid)
    for process in [top, *top.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended; its time now counts as its parent's
            times = process.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


@asynccontextmanager
async def bench_stack(
    max_sandboxes: int = 50,
    *,
    parts: Sequence[PartName] = PARTS,
    model_options: Sequence[str] = (),
    port_of: Mapping[str, int] | None = None,
) -> AsyncIterator[BenchStack]:
    """Run a stack of its own in a temporary directory while the block runs. `LocalStack` says what the options are."""
    with tempfile.TemporaryDirectory(prefix="cofounder-bench-") as directory:
        options = ("--max-sandboxes", str(max_sandboxes))
        async with LocalStack(
            temporal_ui=False, sandbox_options=options, parts=parts, model_options=model_options, port_of=port_of
        ) as servers:
            await migrate(servers.environment["DATABASE_URL"])
            settings = settings_of(servers, temporal_task_queue=f"bench-{uuid.uuid4()}")
            engine = make_engine(settings.database_url)
            client = await connect_temporal(servers.environment)
            harness = WorkerHarness(settings, client, make_sessions(engine), settings.anthropic_base_url or "")
            try:
                yield BenchStack(servers, harness, Path(directory))
            finally:
                await engine.dispose()
