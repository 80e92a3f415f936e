"""Builds that the previous version began go on with this one: in the middle of a turn, waiting, and begun while workers
of both versions, which have none of Temporal's versions, share a queue.

Each stays with its owner."""

import asyncio
import os
import signal
import socket
import uuid
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client

from clients.browser import Browser
from clients.temporal import connect_temporal
from db.access import find_role
from db.builds import BuildFilter, list_builds
from db.migrate import migrate
from db.session import make_engine, make_sessions
from db.transaction import transaction
from domain.identity import Role
from domain.names import WAKE
from domain.status import Status
from local.stack import LocalStack
from tests.harness.checkout import previous_checkout
from tests.harness.repeats import assert_nothing_was_repeated
from tests.harness.scripts import PRODUCT, bash, hold, steps
from tests.harness.wait import DEADLINE, wait_until
from tests.harness.worker import WorkerHarness, sample_brief, settings_of
from tests.workflows.scenarios import release_command
from worker import wired_worker

pytestmark = pytest.mark.timeout(1800)

TOKEN = "token-of-the-upgrade-test"
COMMIT = "git add -A; git commit -qm 'Add the product'"


class Previous:
    """The previous version's API and worker, as processes."""

    def __init__(self, checkout: Path, environment: Mapping[str, str], directory: Path) -> None:
        self._checkout = checkout
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "TMPDIR": str(directory),
            "API_TOKEN": TOKEN,
            "GRACEFUL_SHUTDOWN_SECONDS": "1",
            **environment,
        }
        self._directory = directory
        self._processes: list[Process] = []
        self._worker: Process | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.http = httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{self._port}",
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=DEADLINE,
            trust_env=False,
        )

    async def start(self) -> None:
        """Migrate the database, then start the API and a worker."""
        migrated = await self._spawn("cofounder", "migrate")
        assert await migrated.wait() == 0, self.log("cofounder")
        await self._spawn("python", "-m", "api", "--port", str(self._port), log="api")
        self._worker = await self._spawn("python", "-m", "worker", log="worker")
        await wait_until(self._answers)

    @property
    def worker(self) -> Process:
        """The worker's process."""
        assert self._worker is not None, "it was started"
        return self._worker

    async def kill_worker(self) -> None:
        """Kill the worker without a warning, as with a machine that goes down. Work in hand is lost."""
        self.worker.send_signal(signal.SIGKILL)
        await self.worker.wait()

    async def stop(self) -> None:
        """Kill what still runs."""
        await self.http.aclose()
        for process in self._processes:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
                await process.wait()

    async def build(self, user: str, script: Mapping[str, Any], model_url: str) -> uuid.UUID:
        """Start a build as a client of the previous version's API does."""
        goal, headers = f"Build it. [{uuid.uuid4().hex}]", {"X-Cofounder-User": user}
        async with httpx2.AsyncClient(timeout=DEADLINE, trust_env=False) as http:
            body = {"match": goal, "script": script}
            (await http.post(f"{model_url}/_rehearsal/scripts", json=body)).raise_for_status()
        project = await self.http.post("/v1/projects", json={"brief": sample_brief()}, headers=headers)
        assert project.status_code == 201, project.text
        url = f"/v1/projects/{project.json()['id']}/builds"
        build = await self.http.post(url, json={"goal": goal}, headers=headers)
        assert build.status_code == 201, build.text
        return uuid.UUID(build.json()["id"])

    def log(self, name: str) -> str:
        """The end of a process's output."""
        return (self._directory / f"{name}.log").read_text()[-3000:]

    async def _answers(self) -> bool:
        try:
            return (await self.http.get("/healthz")).status_code < 500
        except httpx2.HTTPError:
            return False

    async def _spawn(self, program: str, *arguments: str, log: str | None = None) -> Process:
        with (self._directory / f"{log or program}.log").open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                self._checkout / ".venv" / "bin" / program,
                *arguments,
                cwd=self._checkout,
                env=self._environment,
                stdin=DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._processes.append(process)
        return process


@asynccontextmanager
async def previous_version(stack: LocalStack, queue: str, directory: Path) -> AsyncIterator[Previous]:
    """Run the previous version against a fresh stack."""
    checkout = await asyncio.to_thread(previous_checkout)
    environment = {**stack.environment, "TEMPORAL_TASK_QUEUE": queue}
    running = Previous(checkout, environment, directory)
    try:
        await running.start()
        yield running
    finally:
        await running.stop()


async def _suspend(engine: AsyncEngine, user: str, *, suspended: bool) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("update users set suspended = :suspended where id = :user"), {"user": user, "suspended": suspended}
        )


async def _until_row(engine: AsyncEngine, query: str, **parameters: Any) -> None:
    """Wait until a query of the previous version's tables has a row: they have not the columns of today's models."""

    async def found() -> bool:
        async with engine.connect() as connection:
            return (await connection.execute(text(query), parameters)).first() is not None

    await wait_until(found)


_TOOL_STARTED = "select 1 from events where build_id = :build and type = 'tool_started' and turn = :turn"
_WAITS = "select 1 from builds where id = :build and status = 'needs_input'"


async def _asks_for_work(client: Client, queue: str, pids: Collection[int]) -> bool:
    """Whether these processes have asked the queue for tasks of workflows."""
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    )
    described = await client.workflow_service.describe_task_queue(request)
    return {int(each.identity.partition("@")[0]) for each in described.pollers} >= set(pids)


async def test_builds_of_the_previous_version_go_on(browser: Browser, tmp_path: Path) -> None:
    queue = f"upgrade-{uuid.uuid4()}"
    async with LocalStack(durable=False, temporal_ui=False) as stack:
        settings = settings_of(stack, temporal_task_queue=queue)
        model_url = settings.anthropic_base_url or ""
        engine = make_engine(settings.database_url)
        client = await connect_temporal(stack.environment)
        harness = WorkerHarness(settings, client, make_sessions(engine), model_url)
        async with previous_version(stack, queue, tmp_path) as previous:
            work = [bash(PRODUCT)], [bash(COMMIT)]
            script = steps(*work, [hold()], [bash("true")], [hold()], [bash("true")])
            held = await previous.build("one", script, model_url)
            stopped = await previous.build("two", steps([bash("true")], [hold()], *work), model_url)
            await _until_row(engine, _TOOL_STARTED, build=held, turn=3)
            await _until_row(engine, _TOOL_STARTED, build=stopped, turn=2)
            await _suspend(engine, "two", suspended=True)
            await release_command(harness, stopped)
            await _until_row(engine, _WAITS, build=stopped)
            await migrate(settings.database_url)
            # Both versions ask one queue for work for a while, which has the new schema.
            async with wired_worker(settings, client, browser) as worker, worker:
                await wait_until(lambda: _asks_for_work(client, queue, {os.getpid(), previous.worker.pid}))
                later = await previous.build("three", steps(*work, [hold()]), model_url)
                await release_command(harness, held)
                await _until_row(engine, _TOOL_STARTED, build=held, turn=5)
                await _until_row(engine, _TOOL_STARTED, build=later, turn=3)
                await previous.kill_worker()
                await release_command(harness, held)
                await release_command(harness, later)
                await _suspend(engine, "two", suspended=False)
                await harness.handle(stopped).signal(WAKE)
                for build_id in (held, stopped, later):
                    assert (await harness.finished(build_id)).status == Status.READY
                    await assert_nothing_was_repeated(harness, build_id)
        async with transaction(harness.sessions) as tx:
            for user, build_id in (("one", held), ("two", stopped), ("three", later)):
                [costed] = await list_builds(tx, user, BuildFilter(), None, 10)
                assert costed.build.id == build_id
                assert await find_role(tx, user, costed.build.project_id) == Role.OWNER
        await engine.dispose()
