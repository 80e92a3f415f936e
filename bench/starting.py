"""How long starting a build takes: until the API has answered 201, and until a worker has taken its first task."""

import statistics
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC
from typing import Any

import httpx2

from bench.ground import Ground, ground
from bench.viewers import api_process
from domain.names import build_workflow_id
from tests.workshop import sample_brief


@dataclass(frozen=True)
class Start:
    """Milliseconds from sending the request, over so many builds one after the other."""

    builds: int
    created_p50: float
    created_longest: float
    first_task_p50: float
    first_task_longest: float

    def figures(self) -> dict[str, Any]:
        """All of them, for JSON."""
        return asdict(self)


async def measure(count: int) -> Start:
    """Start so many builds of one user, of whom the second and all further ones wait for a slot."""
    async with ground() as at, at.workers(), api_process(at) as api:
        headers = {"Authorization": f"Bearer {api.token}", "X-Cofounder-User": f"founder-{uuid.uuid4()}"}
        async with httpx2.AsyncClient(base_url=api.url, headers=headers, timeout=30, trust_env=False) as http:
            await _one(at, http)  # everything has been used once
            waited = [await _one(at, http) for _ in range(count)]
    created, first_task = zip(*waited, strict=True)
    return Start(count, statistics.median(created), max(created), statistics.median(first_task), max(first_task))


async def _one(at: Ground, http: httpx2.AsyncClient) -> tuple[float, float]:
    made = await http.post("/v1/projects", json={"brief": sample_brief()})
    made.raise_for_status()
    sent, sent_at = time.monotonic(), time.time()
    answer = await http.post(f"/v1/projects/{made.json()['id']}/builds", json={"goal": "Build the first version."})
    created = (time.monotonic() - sent) * 1000
    assert answer.status_code == 201, answer.text
    build_id = answer.json()["id"]
    first_task = await _first_task(at, build_id)
    (await http.post(f"/v1/builds/{build_id}/cancel")).raise_for_status()
    await at.shop.finished(uuid.UUID(build_id))
    return created, (first_task - sent_at) * 1000


async def _first_task(at: Ground, build_id: str) -> float:
    """When a worker took the first task, by the server's clock, which is this machine's."""
    handle = at.shop.client.get_workflow_handle(build_workflow_id(build_id))
    async for event in handle.fetch_history_events(wait_new_event=True):
        if event.HasField("workflow_task_started_event_attributes"):
            return event.event_time.ToDatetime(UTC).timestamp()
    raise RuntimeError("the build ended without a first task")
