"""The ground that benchmarks run on: the whole stack as processes, durable as in use, and workers to be measured."""

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
from local.stack import LocalStack
from tests.workshop import Workshop, settings_of

_ROOT = Path(__file__).parent.parent

_WORKER_SETTINGS = {"TOOL_CALL_CAP": "1000000", "GRACEFUL_SHUTDOWN_SECONDS": "1"}

_START_SECONDS = 60.0


@dataclass(frozen=True)
class Used:
    """What a process has used since it was started."""

    cpu_seconds: float
    peak_bytes: int


class Process:
    """A program of ours in a process of its own."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self._process = psutil.Process(pid)
        self._log = log

    def used(self) -> Used:
        """CPU time of the process itself, and the most memory that it has held (Linux's VmHWM)."""
        times = self._process.cpu_times()
        status = Path(f"/proc/{self.pid}/status").read_text()
        peak = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)
        return Used(times.user + times.system, peak * 1024)

    async def has_logged(self, words: str) -> None:
        """Wait until the words stand in its log."""
        async with asyncio.timeout(_START_SECONDS):
            while words not in self._log.read_text(errors="replace"):
                if not self._process.is_running() or self._process.status() == psutil.STATUS_ZOMBIE:
                    raise RuntimeError(f"A process ended too early. Its log: {self._log.read_text()[-3000:]}")
                await asyncio.sleep(0.05)


@dataclass
class Ground:
    """The running stack and a shop on a task queue of its own, without a worker."""

    stack: LocalStack
    shop: Workshop
    directory: Path

    @asynccontextmanager
    async def workers(self, count: int = 1) -> AsyncIterator[Sequence[Process]]:
        """So many workers on the shop's queue, each a `python worker.py` of its own, started and ready."""
        variables = {**_WORKER_SETTINGS, "TEMPORAL_TASK_QUEUE": self.shop.settings.temporal_task_queue}
        async with AsyncExitStack() as stopping:
            program = [str(_ROOT / "worker.py")]
            started = [await stopping.enter_async_context(self.program(program, variables)) for _ in range(count)]
            for process in started:
                await process.has_logged('"worker started"')
            yield started

    @asynccontextmanager
    async def program(self, arguments: Sequence[str], variables: Mapping[str, str]) -> AsyncIterator[Process]:
        """A Python program of this repository, stopped at the end."""
        log = self.directory / f"{uuid.uuid4()}.log"
        environment = {
            **{"PATH": os.environ["PATH"], "HOME": str(self.directory), "TMPDIR": tempfile.gettempdir()},
            **{"LANG": "C.UTF-8", "PYTHONPATH": str(_ROOT), **self.stack.environment, **variables},
        }
        command = Command(arguments=[sys.executable, *arguments], environment=environment)
        guarded = await self.stack.start_beside(command, log=log)
        guarded.has_served = True  # it is stopped in order
        try:
            yield Process(guarded.pid, log)
        finally:
            await guarded.stop()

    def cpu_by_part(self) -> dict[str, float]:
        """Seconds of CPU that each server of the stack has used so far, with the processes that it has started: a
        sandbox's commands are among those of the sandbox server."""
        return {part: _cpu_of_tree(self.stack.pid(part)) for part in self.stack.parts}

    async def database_bytes(self) -> int:
        """The size of all tables with their TOAST and their indexes, dead rows included."""
        query = text(
            "select sum(pg_total_relation_size(oid)) from pg_class "
            "where relkind = 'r' and relnamespace = 'public'::regnamespace"
        )
        async with self.shop.session() as session:
            return int(await session.scalar(query) or 0)

    async def conversation_bytes(self, builds: Sequence[uuid.UUID]) -> int:
        """How long the builds' conversations are: the prompt, every message and every tool result, as they are sent."""
        said = select(func.sum(func.octet_length(Message.content))).where(Message.build_id.in_(builds))
        told = select(func.sum(func.octet_length(ToolCall.result))).where(ToolCall.build_id.in_(builds))
        first = select(func.sum(func.octet_length(Prompt.system) + func.octet_length(Prompt.tools))).where(
            Prompt.build_id.in_(builds)
        )
        async with self.shop.session() as session:
            return sum([int(await session.scalar(part) or 0) for part in (first, said, told)])


def _cpu_of_tree(pid: int) -> float:
    """Of the process, those it has started, and those they have waited for."""
    seconds = 0.0
    top = psutil.Process(pid)
    for process in [top, *top.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile, and is its parent's now
            times = process.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


@asynccontextmanager
async def ground(max_sandboxes: int = 50) -> AsyncIterator[Ground]:
    """A stack of its own, in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="cofounder-bench-") as made:
        options = ("--max-sandboxes", str(max_sandboxes))
        async with LocalStack(temporal_ui=False, sandbox_options=options) as stack:
            await migrate(stack.environment["DATABASE_URL"])
            settings = settings_of(stack, temporal_task_queue=f"bench-{uuid.uuid4()}")
            engine = make_engine(settings.database_url)
            client = await connect_temporal(stack.environment)
            shop = Workshop(settings, client, make_sessions(engine), settings.anthropic_base_url or "")
            try:
                yield Ground(stack, shop, Path(made))
            finally:
                await engine.dispose()
