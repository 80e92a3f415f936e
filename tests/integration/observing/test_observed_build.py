"""What a build leaves in metrics and logs, with the programs as operators run them."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from local.stack import LocalStack
from tests.harness.observed_run import ObservedStack, observed_stack
from tests.harness.promql import metric_names
from tests.harness.worker import sample_brief

AFTER_A_FAILURE = {"temporal_workflow_task_execution_failed_total"}
"""Temporal's SDK shows a counter once it has counted. `tests/drills/test_alerts.py` has these."""


@dataclass
class ObservedBuild:
    """A ready build, what the programs showed when it was ready, and the lines of their logs."""

    build: dict[str, Any]
    metrics: dict[str, str]
    health: dict[str, int]
    lines: dict[str, list[dict[str, Any]]]


async def _look(running: ObservedStack) -> ObservedBuild:
    build = await running.build(sample_brief())
    programs = {"api": running.api, "worker": running.worker}
    metrics = {name: await program.scrape() for name, program in programs.items()}
    async with httpx2.AsyncClient(trust_env=False) as http:
        health = {
            path: (await http.get(f"{running.worker.metrics_url}{path}")).status_code for path in ("/livez", "/readyz")
        }
        # The API shows its metrics at their own port only.
        health["api"] = (await http.get(f"{running.api_url}/metrics")).status_code
    for program in programs.values():
        assert await program.stop() == 0
    return ObservedBuild(build, metrics, health, {name: each.lines() for name, each in programs.items()})


@pytest.fixture(scope="module")
async def observed(stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ObservedBuild]:
    directory = tmp_path_factory.mktemp("observed")
    async with observed_stack(stack, directory, f"test-{uuid.uuid4()}") as running:
        yield await _look(running)


def _samples(text: str) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    samples: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return samples


def _value(samples: dict[str, dict[frozenset[tuple[str, str]], float]], name: str, **labels: str) -> float:
    wanted = frozenset(labels.items())
    return sum(value for having, value in samples[name].items() if wanted <= having)


async def test_a_build_is_counted(observed: ObservedBuild) -> None:
    assert observed.build["status"] == "ready"
    worker = _samples(observed.metrics["worker"])
    assert _value(worker, "cofounder_turns_total", outcome="tool_use") > 0
    assert _value(worker, "cofounder_model_calls_total", outcome="answered") > 0
    assert _value(worker, "cofounder_model_tokens_total", kind="output") > 0
    assert _value(worker, "cofounder_start_to_call_seconds_count") == 1
    assert _value(worker, "cofounder_snapshots_total", result="stored") > 0
    assert _value(worker, "cofounder_gates_total", result="passed") == 1
    for name in ("database", "temporal", "store", "sandbox", "model"):
        assert _value(worker, "cofounder_dependency_up", dependency=name) == 1
    assert _value(worker, "cofounder_ledger_drift_microdollars") == 0
    assert _value(worker, "temporal_activity_execution_latency_seconds_count", activity_type="think") > 0
    api = _samples(observed.metrics["api"])
    route = "/v1/projects/{project_id}/builds"
    assert _value(api, "cofounder_api_requests_total", method="POST", route=route, status="201") == 1


async def test_every_metric_of_rules_and_dashboards_is_there(observed: ObservedBuild) -> None:
    shown = set[str]()
    for text in observed.metrics.values():
        for family in text_string_to_metric_families(text):
            suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(family.type, ("",))
            shown |= {f"{family.name}{suffix}" for suffix in suffixes}
    named = metric_names()
    assert len(named) > 30
    assert named - shown <= AFTER_A_FAILURE


async def test_no_label_has_an_id(observed: ObservedBuild) -> None:
    for text in observed.metrics.values():
        assert observed.build["id"] not in text
        assert observed.build["project_id"] not in text


async def test_the_worker_says_how_it_is_and_the_api_does_not_tell_everyone(observed: ObservedBuild) -> None:
    assert observed.health == {"/livez": 200, "/readyz": 200, "api": 404}


async def test_requests_and_activities_have_their_ids_in_the_log(observed: ObservedBuild) -> None:
    [started] = [line for line in observed.lines["api"] if line.get("request_id") == observed.build["request_id"]]
    assert started["event"] == "request"
    assert (started["method"], started["status"]) == ("POST", 201)
    assert started["user"] not in (None, "founder")
    assert not [line for line in observed.lines["worker"] if line["level"] == "error"]
