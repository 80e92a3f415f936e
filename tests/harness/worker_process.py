"""Runs `python worker.py` as operators do: a process of its own, stopped by signals."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.stack import LocalStack
from tests.harness.checkout import THIS_VERSION, Checkout
from tests.harness.wait import DEADLINE
from tests.harness.worker import WorkerHarness

ROOT = Path(__file__).parents[2]


@dataclass
class RunningWorker:
    """A worker in a process of its own, and its log so far."""

    process: asyncio.subprocess.Process
    logged: list[dict[str, Any]] = field(default_factory=list)
    last_words: str = ""
    """Why it did not start, or ended by itself."""

    async def until(self, event: str) -> dict[str, Any]:
        """Read the log until the event appears; every line must be a JSON object, but for the worker's last words."""
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            if line.startswith(b"worker: "):
                self.last_words = line.decode()
                continue
            self.logged.append(json.loads(line))
            if self.logged[-1]["event"] == event:
                return self.logged[-1]
        raise AssertionError(self.logged)

    async def stop(self) -> int:
        """Stop the process as a supervisor does, and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await self.exit_code()

    async def exit_code(self) -> int:
        """Read the log to its end and return the exit code."""
        with suppress(AssertionError):
            await self.until("the end of the log")
        return await asyncio.wait_for(self.process.wait(), DEADLINE)


@asynccontextmanager
async def worker_process(
    harness: WorkerHarness,
    stack: LocalStack,
    *,
    code: Checkout = THIS_VERSION,
    program: Sequence[str] = ("worker.py",),
    variables: Mapping[str, str] | None = None,
    **environment: str,
) -> AsyncIterator[RunningWorker]:
    """Start a worker, and kill it at the end if it still runs. It stops its calls after a second by default.

    - `code`: that of another version.
    - `program`: another one that starts a worker, as arguments of Python.
    - `variables`: of its environment, like the other arguments.
    """
    process = await asyncio.create_subprocess_exec(
        code.python,
        *program,
        cwd=code.root,
        env={
            "PATH": os.environ["PATH"],
            **stack.environment,
            "TEMPORAL_TASK_QUEUE": harness.settings.temporal_task_queue,
            "GRACEFUL_SHUTDOWN_SECONDS": "1",
            **(variables or {}),
            **environment,
        },
        stderr=asyncio.subprocess.PIPE,
        limit=2**20,
    )
    try:
        yield RunningWorker(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
