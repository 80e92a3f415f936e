"""Measure how long it takes to start a build: until the API answers 201, and until a worker takes its first task."""

import statistics
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC
from typing import Any

import httpx2

from bench.deployment import BenchStack, bench_stack
from bench.viewers import api_process
from domain.names import build_workflow_id
from tests.harness.worker import sample_brief


@dataclass(frozen=True)
class Start:
    """Milliseconds from sending the request, over `builds` builds started one after the other."""

    builds: int
    created_p50: float
    created_longest: float
    first_task_p50: float
    first_task_longest: float

    def figures(self) -> dict[str, Any]:
        """All figures, for JSON."""
        return asdict(self)


async def measure(count: int) -> Start:
    """Start `count` builds of one user, each after the previous one has ended."""
    async with bench_stack() as bench, bench.workers(), api_process(bench) as api:
        headers = {"Authorization": f"Bearer {api.token}", "X-Cofounder-User": await bench.harness.founder()}
        async with httpx2.AsyncClient(base_url=api.url, headers=headers, timeout=30, trust_env=False) as http:
            await _one(bench, http)  # warm up
            times = [await _one(bench, http) for _ in range(count)]
    created, first_task = zip(*times, strict=True)
    return Start(count, statistics.median(created), max(created), statistics.median(first_task), max(first_task))


async def _one(bench: BenchStack, http: httpx2.AsyncClient) -> tuple[float, float]:
    project = await http.post("/v1/projects", json={"brief": sample_brief()})
    project.raise_for_status()
    start, start_at = time.monotonic(), time.time()
    answer = await http.post(f"/v1/projects/{project.json()['id']}/builds", json={"goal": "Build the first version."})
    created = (time.monotonic() - start) * 1000
    assert answer.status_code == 201, answer.text
    build_id = answer.json()["id"]
    first_task = await _first_task(bench, build_id)
    (await http.post(f"/v1/builds/{build_id}/cancel")).raise_for_status()
    await bench.harness.finished(uuid.UUID(build_id))
    return created, (first_task - start_at) * 1000


async def _first_task(bench: BenchStack, build_id: str) -> float:
    """Return when a worker took the first task, by the clock of the server, which runs on this machine."""
    handle = bench.harness.client.get_workflow_handle(build_workflow_id(build_id))
    async for event in handle.fetch_history_events(wait_new_event=True):
        if event.HasField("workflow_task_started_event_attributes"):
            return event.event_time.ToDatetime(UTC).timestamp()
    raise RuntimeError("the build ended without a first task")
