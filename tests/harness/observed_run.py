"""Runs a build through an API and a worker that show their metrics, and keeps all that they have shown."""

import asyncio
import json
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from local.ports import Ports
from local.postgres import api_database_url
from local.stack import LocalStack
from tests.harness.wait import DEADLINE, wait_until

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-for-observed-runs"
OPERATORS = "a-token-of-operators-of-observed-runs"


@dataclass
class ObservedProgram:
    """A program in a process of its own, with its port for metrics."""

    name: str
    arguments: list[str]
    environment: dict[str, str]
    log: Path
    directory: Path = ROOT
    """Where its code is."""
    _process: asyncio.subprocess.Process | None = None

    @property
    def process(self) -> asyncio.subprocess.Process:
        """Its process, which may have ended."""
        assert self._process is not None, "it has not been started"
        return self._process

    @property
    def metrics_address(self) -> str:
        """Where it shows its metrics."""
        return self.environment["METRICS_ADDRESS"]

    @property
    def metrics_url(self) -> str:
        """The URL of that."""
        return f"http://{self.metrics_address}"

    async def start(self) -> None:
        """Start it, and wait until it is ready."""
        with self.log.open("ab") as file:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, *self.arguments, cwd=self.directory, env=self.environment, stderr=file
            )
        await wait_until(self.is_ready, look_seconds=0.2)

    async def kill(self) -> None:
        """End it at once, if it runs."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def scrape(self) -> str:
        """Its metrics, in Prometheus's text format."""
        async with httpx2.AsyncClient(timeout=DEADLINE, trust_env=False) as http:
            return (await http.get(f"{self.metrics_url}/metrics")).raise_for_status().text

    async def is_ready(self) -> bool:
        """Whether it answers that it is ready."""
        assert self.process.returncode is None, self.log.read_text()
        async with httpx2.AsyncClient(timeout=DEADLINE, trust_env=False) as http:
            with suppress(httpx2.TransportError):
                return (await http.get(f"{self.metrics_url}/readyz")).status_code == 200
        return False

    async def stop(self) -> int:
        """Stop it as a supervisor does; returns its exit code."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), DEADLINE)

    def lines(self) -> list[dict[str, Any]]:
        """The lines of its log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@dataclass
class ObservedStack:
    """An API and a worker on the embedded stack."""

    api: ObservedProgram
    worker: ObservedProgram
    api_url: str
    environment: dict[str, str] = field(default_factory=dict)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx2.AsyncClient]:
        """A client of the API, as the founder."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx2.AsyncClient(
            base_url=f"{self.api_url}/v1", headers=headers, timeout=DEADLINE, trust_env=False
        ) as http:
            yield http

    async def build(
        self,
        brief: dict[str, Any] | None,
        script: dict[str, Any],
        meanwhile: Callable[[uuid.UUID], Awaitable[None]] | None = None,
    ) -> dict[str, Any]:
        """Run a build of a new project to its end, in which the model follows the script.

        Args:
            brief: None for a project without one, whose builds fail.
            meanwhile: called when the build has been started.

        Returns:
            The build, with the id of the request that started it.

        Raises:
            TimeoutError: it did not end in time; the message has its status and why.
        """
        goal = f"Build the first version. [{uuid.uuid4().hex}]"
        model = self.environment["ANTHROPIC_BASE_URL"]
        async with httpx2.AsyncClient(timeout=DEADLINE, trust_env=False) as http:
            rehearsed = await http.post(f"{model}/_rehearsal/scripts", json={"match": goal, "script": script})
            rehearsed.raise_for_status()
        async with self.client() as http:
            project = (await http.post("/projects", json={"brief": brief} if brief else {})).raise_for_status().json()
            answer = (await http.post(f"/projects/{project['id']}/builds", json={"goal": goal})).raise_for_status()
            build: dict[str, Any] = answer.json()
            if meanwhile is not None:
                await meanwhile(uuid.UUID(build["id"]))

            async def has_ended() -> bool:
                build.update((await http.get(f"/builds/{build['id']}")).raise_for_status().json())
                return build["status"] in ("ready", "failed")

            try:
                await wait_until(has_ended, look_seconds=0.2)
            except TimeoutError as error:
                raise TimeoutError(f"The build is {build['status']}: {build['reason']}") from error
            return build | {"request_id": answer.headers["X-Request-Id"]}


@asynccontextmanager
async def observed_stack(
    stack: LocalStack, directory: Path, task_queue: str, **environment: str
) -> AsyncIterator[ObservedStack]:
    """Run an API and a worker whose metrics anyone on this machine may read. Both are ready."""
    ports = Ports()
    api_port = ports.choose(set())
    shared = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        **stack.environment,
        "TEMPORAL_TASK_QUEUE": task_queue,
        "GRACEFUL_SHUTDOWN_SECONDS": "1",
        **environment,
    }
    own = {
        "api": {
            "DATABASE_URL": api_database_url(shared["DATABASE_URL"]),
            "API_TOKEN": TOKEN,
            "API_OPERATOR_TOKEN": OPERATORS,
            "PUBLIC_URL": f"http://127.0.0.1:{api_port}",
        },
        "worker": {},
    }
    arguments = {"api": ["-m", "api", "--port", str(api_port)], "worker": ["-m", "worker"]}
    programs: dict[str, ObservedProgram] = {}
    async with AsyncExitStack() as closing:
        closing.callback(ports.release)
        for name in own:
            variables = {**shared, **own[name], "METRICS_ADDRESS": f"127.0.0.1:{ports.choose(set())}"}
            programs[name] = ObservedProgram(name, arguments[name], variables, directory / f"{name}.log")
            closing.push_async_callback(programs[name].kill)
        await asyncio.gather(*(program.start() for program in programs.values()))
        yield ObservedStack(programs["api"], programs["worker"], f"http://127.0.0.1:{api_port}", shared)
